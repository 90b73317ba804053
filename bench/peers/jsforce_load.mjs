// jsforce, Bulk API 2.0: upsert CSV files one after the other and fetch all results.
// Arguments: URL, token, object, key field, CSV files. CLIENT_PACKAGES names the folder with its package.json.

import fs from 'node:fs';
import { createRequire } from 'node:module';

const jsforce = createRequire(`${process.env.CLIENT_PACKAGES}/`)('jsforce');
const [url, accessToken, object, externalIdFieldName, ...files] = process.argv.slice(2);
const conn = new jsforce.Connection({ instanceUrl: url, accessToken, version: '66.0' });
let rows = 0;
for (const file of files) {
  const job = conn.bulk2.createJob({ operation: 'upsert', object, externalIdFieldName });
  await job.open();
  await job.uploadData(fs.createReadStream(file));
  await job.close();
  await job.poll(500, 600000);
  const results = await job.getAllResults();
  rows += results.successfulResults.length + results.failedResults.length;
}
console.log(JSON.stringify({ rows }));
