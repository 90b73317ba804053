// Drives jsforce. Arguments are the task's file and the file for what it saw.

import { createRequire } from 'node:module';
import fs from 'node:fs';

const require = createRequire(`${process.env.CLIENT_PACKAGES}/`);
const jsforce = require('jsforce');

const task = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const key = task.external_id;

const conn = new jsforce.Connection({
  instanceUrl: task.url,
  accessToken: task.access_token,
  version: task.version,
});
conn.bulk2.pollInterval = 500;
conn.bulk2.pollTimeout = 600000;

async function signInEveryWay() {
  const ways = {};
  const soap = new jsforce.Connection({ loginUrl: task.url, version: task.version });
  await soap.login(task.username, task.password + task.security_token);
  ways.soap = (await soap.identity()).username;
  const oauth2 = { loginUrl: task.url, clientId: task.client_id, clientSecret: task.client_secret };
  const password = new jsforce.Connection({ oauth2, version: task.version });
  await password.login(task.username, task.password + task.security_token);
  ways.password = (await password.identity()).username;
  const app = new jsforce.Connection({ oauth2, version: task.version });
  await app.authorize({ grant_type: 'client_credentials' });
  ways.client_credentials = (await app.identity()).username;
  const wrong = new jsforce.Connection({ loginUrl: task.url, version: task.version });
  ways.wrong = await wrong.login(task.username, 'wrong').then(() => 'signed in', (error) => error.message.split(':')[0]);
  return ways;
}

async function queryByPages(soql) {
  const records = [];
  let page = await conn.query(soql);
  records.push(...page.records);
  while (!page.done) {
    page = await conn.queryMore(page.nextRecordsUrl);
    records.push(...page.records);
  }
  return records;
}

// No slash in the key: jsforce writes keys into the path as they are.
async function oneRecord() {
  const customers = conn.sobject(task.object);
  const made = await customers.create({ [key]: 'one หนึ่ง', Name: 'ก' });
  await customers.update({ Id: made.id, Name: 'ข' });
  const again = await customers.upsert({ [key]: 'one หนึ่ง', Name: 'ค' }, key);
  const found = await customers.findOne({ [key]: 'one หนึ่ง' });
  await customers.destroy(made.id);
  return { created: again.created, name: found.Name };
}

async function collections() {
  const customers = conn.sobject(task.object);
  const results = await customers.create([
    { [key]: 'two-1', Name: 'ดี' },
    { [key]: 'two-2', Name: 'x'.repeat(81) },
  ]);
  const again = await customers.upsert([{ [key]: 'two-1', Name: 'ดีกว่า' }, { [key]: 'two-3', Name: 'x'.repeat(81) }], key);
  const removed = await customers.destroy([results[0].id]);
  return {
    upserted: again.map((each) => [each.success, each.created ?? null, each.errors.map((error) => error.statusCode)]),
    success: results.map((each) => each.success),
    code: results[1].errors[0].statusCode,
    removed: removed[0].success,
  };
}

async function describedInOneRequest() {
  const base = `/services/data/v${task.version}`;
  const answer = await conn.requestPost(`${base}/composite`, {
    compositeRequest: [
      { method: 'GET', referenceId: 'limits', url: `${base}/limits` },
      { method: 'GET', referenceId: 'described', url: `${base}/sobjects/${task.object}/describe` },
    ],
  });
  return answer.compositeResponse.map((each) => each.httpStatusCode);
}

const fields = (await conn.describe(task.object)).fields.map((field) => field.name);
const inserted = await conn.bulk2.loadAndWaitForResults({
  object: task.object, operation: 'insert', lineEnding: 'LF', input: fs.createReadStream(task.insert),
});
const queried = await queryByPages(`SELECT Id, ${key}, Region__r.Name FROM ${task.object}`);
const upserted = await conn.bulk2.loadAndWaitForResults({
  object: task.object, operation: 'upsert', externalIdFieldName: key, lineEnding: 'LF',
  input: fs.createReadStream(task.upsert),
});
const ids = new Map(queried.map((record) => [record[key], record.Id]));
const deleted = await conn.bulk2.loadAndWaitForResults({
  object: task.object, operation: 'delete', input: task.delete_keys.map((each) => ({ Id: ids.get(each) })),
});
const stream = await conn.bulk2.query(`SELECT ${key}, Name, Note__c FROM ${task.object}`);
const exported = await stream.toArray();

const seen = {
  version: jsforce.VERSION,
  login: (await conn.identity()).username,
  fields,
  inserted: inserted.successfulResults.length,
  queried: queried.length,
  created: upserted.successfulResults.filter((row) => row.sf__Created === 'true').length,
  updated: upserted.successfulResults.filter((row) => row.sf__Created === 'false').length,
  failed: Object.fromEntries(upserted.failedResults.map((row) => [row[key], row.sf__Error])),
  deleted: deleted.successfulResults.length,
  exported: Object.fromEntries(exported.map((row) => [row[key], [row.Name, row.Note__c]])),
  extra: {
    sign_ins: await signInEveryWay(),
    one_record: await oneRecord(),
    collections: await collections(),
    composite: await describedInOneRequest(),
    unprocessed: upserted.unprocessedRecords.length,
    regions: await conn.sobject('Region__c').count({}),
    api_usage: conn.limitInfo.apiUsage.used,
  },
};
fs.writeFileSync(process.argv[3], JSON.stringify(seen));
