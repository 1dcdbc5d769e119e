// Each DICOM file that is named, as dcmjs reads it: one line of JSON a file, bytes as base64.

import { readFileSync } from "node:fs";
import dcmjs from "dcmjs";

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
dcmjs.log.setLevel("silent");

function plain(value) {
  if (value instanceof ArrayBuffer) return Buffer.from(value).toString("base64");
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64");
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).filter(([name]) => !name.startsWith("_"));
  return Object.fromEntries(entries.map(([name, one]) => [name, plain(one)]));
}

for (const file of process.argv.slice(2)) {
  const bytes = readFileSync(file);
  const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const dataset = DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(whole).dict);
  process.stdout.write(JSON.stringify(plain(dataset)) + "\n");
}
