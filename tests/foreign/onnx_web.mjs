// Run ONNX files in onnxruntime-web on WebAssembly: node onnx_web.mjs ENVIRONMENT FOLDER, see onnx_web.py.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [environment, folder] = process.argv.slice(2);
const ort = createRequire(join(environment, "index.js"))("onnxruntime-web");
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1;

const ARRAYS = {
  bool: Uint8Array,
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
};
const size = (shape) => shape.reduce((a, b) => a * b, 1);

function zeros(input, batch) {
  const shape = input.shape.map((axis) => (typeof axis === "string" ? batch : axis));
  return new ort.Tensor(input.type, new ARRAYS[input.type](size(shape)), shape);
}

async function steps(session, x, type, shape) {
  const [length, batch] = shape;
  const states = session.inputMetadata.filter((input) => input.name !== "x");
  const feeds = Object.fromEntries(states.map((input) => [input.name, zeros(input, batch)]));
  const many = x.length / length;
  const parts = {};
  for (let t = 0; t < length; t++) {
    feeds.x = new ort.Tensor(type, x.slice(t * many, (t + 1) * many), shape.slice(1));
    const made = await session.run(feeds);
    for (const { name } of states) feeds[name] = made[`${name}.next`];
    for (const name of session.outputNames) (parts[name] ??= []).push(made[name]);
  }
  const kept = new Set(states.map((input) => `${input.name}.next`));
  return Object.fromEntries(
    Object.entries(parts).map(([name, each]) => [
      name,
      kept.has(name)
        ? { type: each[0].type, shape: each[0].dims, bytes: [each.at(-1).data] }
        : { type: each[0].type, shape: [length, ...each[0].dims], bytes: each.map((tensor) => tensor.data) },
    ]),
  );
}

async function sequence(session, x, type, shape) {
  const made = await session.run({ x: new ort.Tensor(type, x, shape) });
  return Object.fromEntries(
    session.outputNames.map((name) => [
      name,
      { type: made[name].type, shape: made[name].dims, bytes: [made[name].data] },
    ]),
  );
}

const made = {};
for (const { name, file, type, shape } of JSON.parse(readFileSync(join(folder, "cases.json")))) {
  try {
    const model = readFileSync(join(folder, `${file}.onnx`));
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    const bytes = readFileSync(join(folder, `${file}.x`));
    const x = new ARRAYS[type](new Uint8Array(bytes).buffer);
    const axes = session.inputMetadata.find((input) => input.name === "x").shape;
    const run = axes.length === shape.length ? sequence : steps;
    const outputs = Object.entries(await run(session, x, type, shape));
    made[name] = {};
    for (const [i, [output, value]] of outputs.entries()) {
      const parts = value.bytes.map((data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      writeFileSync(join(folder, `${file}.${i}`), Buffer.concat(parts));
      made[name][output] = { file: `${file}.${i}`, type: value.type, shape: value.shape };
    }
    await session.release();
  } catch (fault) {
    made[name] = String(fault.message ?? fault);
  }
}
writeFileSync(join(folder, "made.json"), JSON.stringify(made));
