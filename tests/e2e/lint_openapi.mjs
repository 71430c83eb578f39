/*
 * Has two public tools look at an API document: node lint_openapi.mjs FILE. Prints a line per problem; silence is praise.
 *
 * Redocly's linter, with every rule of its strictest set that is about what the document says. Not asked: which license the
 * service has. And the validator that checks a document against the JSON Schema of OpenAPI 3.1.
 */
import { readFileSync } from 'node:fs';
import redocly from '@redocly/openapi-core';
import { Validator } from '@seriousme/openapi-schema-validator';

const file = process.argv[2];
const config = await redocly.createConfig({ extends: ['recommended-strict'], rules: { 'info-license': 'off' } });

for (const problem of await redocly.lint({ ref: file, config })) {
  console.log(`${problem.ruleId}: ${problem.message} at ${problem.location[0].pointer}`);
}

const validator = new Validator();
const { valid, errors } = await validator.validate(JSON.parse(readFileSync(file, 'utf8')));

if (!valid) console.log('schema:', JSON.stringify(errors, null, 1));
if (validator.version !== '3.1') console.log('version:', validator.version);
