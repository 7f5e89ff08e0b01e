// Compiles WGSL with Tint, as a browser would, within WebGPU's default limits, or, `raised`, with
// more workgroup memory.
//
//   node check.mjs WEBGPU_FOLDER [raised] < cases.json
//
// Input: [{name, code, subgroups}], where `subgroups` says that the code needs the extension.
// Output: one JSON line for each case, [name, null] or [name, message], written as soon as it is
// known, so that a crash points at the case after the last line.

import { readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const SETUP_FAILED = 3;
const FEATURES = ['shader-f16', 'subgroups'];

const RAISED = { maxComputeWorkgroupStorageSize: 32768 };

async function openDevice(webgpuFolder, isRaised) {
  const { create, globals } = await import(pathToFileURL(join(webgpuFolder, 'index.js')));
  Object.assign(globalThis, globals);
  // Dawn dies with the object that create() returns, so it must outlive every garbage collection.
  globalThis.dawn = create([]);
  const adapter = await globalThis.dawn.requestAdapter();
  if (!adapter) throw new Error('Dawn finds no adapter (on Mesa it needs version 24 or newer)');
  const requiredFeatures = FEATURES.filter((feature) => adapter.features.has(feature));
  // Without requiredLimits the device enforces the defaults that every browser grants.
  const requiredLimits = isRaised ? RAISED : {};
  return adapter.requestDevice({ requiredFeatures, requiredLimits });
}

/** Null, or what Tint or Dawn objects to. */
async function check(device, { code, subgroups }) {
  const header = subgroups ? 'enable subgroups;\n' : '';
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code: header + code });
  const { messages } = await module.getCompilationInfo();
  const errors = messages
    .filter((message) => message.type === 'error')
    .map(({ lineNum, linePos, message }) => {
      return `line ${lineNum - (subgroups ? 1 : 0)}, column ${linePos}: ${message}`;
    });
  if (errors.length === 0) {
    try {
      await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
    } catch (error) {
      errors.push(error.message);
    }
  }
  const scoped = await device.popErrorScope();
  if (scoped && errors.length === 0) errors.push(scoped.message);
  return errors.length === 0 ? null : errors.join('\n');
}

const cases = JSON.parse(readFileSync(0, 'utf8'));
const device = await openDevice(process.argv[2], process.argv[3] === 'raised').catch((error) => {
  console.error(error.message);
  process.exit(SETUP_FAILED);
});
for (const item of cases) {
  // writeSync: the line is out before the next case has a chance to end the process.
  writeSync(1, JSON.stringify([item.name, await check(device, item)]) + '\n');
}
// Dawn's threads would keep the process alive.
process.exit(0);
