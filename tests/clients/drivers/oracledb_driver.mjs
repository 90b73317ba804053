// Drives node-oracledb in thin mode. Arguments are the task's file and the file for what it saw.

import { createRequire } from 'node:module';
import fs from 'node:fs';

const require = createRequire(`${process.env.CLIENT_PACKAGES}/`);
const oracledb = require('oracledb');

const task = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const sign = { user: task.user, password: task.password, connectString: task.dsn };
// Numbers as texts, since a double of JavaScript holds 15 digits; LOBs whole.
const asTexts = {
  fetchTypeHandler: ({ dbType }) =>
    [oracledb.DB_TYPE_NUMBER, oracledb.DB_TYPE_CLOB].includes(dbType) ? { type: oracledb.STRING } : undefined,
};
const codeOf = (promise) => promise.then(() => null, (error) => error.errorNum);

async function countByPages(connection) {
  const { resultSet } = await connection.execute('SELECT id, name FROM n ORDER BY id', [], {
    resultSet: true,
    fetchArraySize: 300,
  });
  let rows = 0;
  let letters = 0;
  for await (const [, name] of resultSet) {
    rows += 1;
    letters += name.length;
  }
  return [rows, letters];
}

const connection = await oracledb.getConnection(sign);
await connection.execute(task.table);
await connection.execute(task.insert, [1, task.name, task.note]);
const many = Array.from({ length: task.rows }, (_, at) => [at + 2, `row ${at}`]);
const { rowsAffected } = await connection.executeMany('INSERT INTO n (id, name) VALUES (:1, :2)', many);
await connection.commit();
const [values] = (await connection.execute(`SELECT ${task.columns} FROM n WHERE id = 1`, [], asTexts)).rows;
const [scn] = (await connection.execute('SELECT current_scn FROM v$database', [], asTexts)).rows[0];
await connection.execute('DELETE FROM n WHERE id > 1');
await connection.commit();
const seen = {
  version: oracledb.versionString,
  thin: oracledb.thin,
  server: connection.oracleServerVersionString,
  many: rowsAffected,
  values: values.map((value) => (Buffer.isBuffer(value) ? value.toString('hex') : value)),
  left: await countByPages(connection),
  then: (await connection.execute(`SELECT COUNT(*) FROM n AS OF SCN ${scn}`, [], asTexts)).rows[0][0],
  errors: [],
};
await connection.rollback();
await connection.executeMany('INSERT INTO n (id, name) VALUES (:1, :2)', many);
seen.pages = await countByPages(connection);
await connection.rollback();
seen.afterRollback = await countByPages(connection);
for (const wrong of task.wrong) seen.errors.push(await codeOf(connection.execute(wrong)));
await connection.close();
seen.errors.push(await codeOf(oracledb.getConnection({ ...sign, password: 'wrong' })));
fs.writeFileSync(process.argv[3], JSON.stringify(seen));
