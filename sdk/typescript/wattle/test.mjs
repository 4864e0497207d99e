// Runs the unit tests of a plugin: `node wattle/test.mjs [FILES]`, in its folder. Without files it is
// `test/*.test.ts` and `test/*.test.js`.
//
// Node's own test runner runs them. They are bundled first, since Node 20 reads no TypeScript, and the contract's
// modules are there only in a bus.
import { spawn } from "node:child_process";
import { mkdir, readdir, rm } from "node:fs/promises";
import path from "node:path";

import { contract, esbuild, options } from "./bundle.mjs";

const target = path.resolve("target", "test");

async function files() {
  if (process.argv.length > 2) return process.argv.slice(2);
  const names = await readdir("test").catch(() => []);
  return names.filter((name) => /\.test\.[jt]s$/.test(name)).map((name) => path.join("test", name));
}

const entryPoints = await files();
if (entryPoints.length === 0) {
  process.stderr.write("there are no tests: write test/NAME.test.ts\n");
  process.exit(1);
}
await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const { build } = await esbuild();
try {
  await build({
    ...options,
    write: true,
    logLevel: "error",
    entryPoints,
    outdir: target,
    outExtension: { ".js": ".mjs" },
    platform: "node",
    plugins: [contract(false)],
    sourcemap: "inline",
  });
} catch {
  process.exit(1);
}
const built = (await readdir(target)).map((name) => path.join(target, name));
const run = spawn(process.execPath, ["--enable-source-maps", "--test", ...built], { stdio: "inherit" });
run.on("exit", (code) => process.exit(code ?? 1));
