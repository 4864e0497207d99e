// Makes one module of a plugin, ready for componentize-qjs: `node wattle/bundle.mjs ENTRY BUNDLE`, in the plugin's
// folder.
//
// Promises: the same sources give the same bytes. Next to BUNDLE it writes `declared.json`, the custom sections that the
// component gets. Errors are lines for the plugin's author, and the exit code is 1.
//
// The default export of ENTRY is the plugin. Its top level runs once here, without a bus.
import { mkdir, realpath, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const here = path.dirname(await realpath(process.argv[1]));
const library = path.join(here, "src");

/** esbuild of the plugin's own folder: the version is the one that its lock file has. */
export async function esbuild() {
  const find = createRequire(path.join(process.cwd(), "package.json"));
  try {
    return await import(pathToFileURL(find.resolve("esbuild")).href);
  } catch (error) {
    throw new Error(`esbuild is not installed here: run \`npm ci\` (${error.message})`);
  }
}

/** Modules of the contract are those of the bus, or without a bus a stand-in. */
export function contract(isBus) {
  return {
    name: "contract",
    setup(build) {
      build.onResolve({ filter: /^(wattle|wasi):/ }, ({ path: name }) =>
        isBus ? { path: name, external: true } : { path: path.join(library, "testing-host.ts") },
      );
      // However the plugin's folder has the library: as a package, a link, or a file beside it.
      build.onResolve({ filter: /^wattle(\/(testing|globals))?$/ }, ({ path: name }) => ({
        path: path.join(library, `${name.split("/")[1] ?? "index"}.ts`),
      }));
    },
  };
}

/** Options of every bundle. */
export const options = { bundle: true, format: "esm", target: "es2023", logLevel: "silent", write: false };

function entry(main) {
  const how = "write `export default plugin({ … })`";
  const name = (file) => path.relative(process.cwd(), file);
  const file = (name) => JSON.stringify(path.join(library, name));
  return {
    contents: [
      `import ${file("globals.ts")};`,
      `import * as main from ${JSON.stringify(main)};`,
      `import { sections } from ${file("declare.ts")};`,
      `const plugin = main.default;`,
      `if (typeof plugin?.handle !== "function" || !plugin.declared) {`,
      `  throw new TypeError(${JSON.stringify(`the default export of ${name(main)} is no plugin: ${how}`)});`,
      `}`,
      `export const handler = plugin;`,
      `export const declared = { sections: sections(plugin) };`,
    ].join("\n"),
    resolveDir: process.cwd(),
    sourcefile: "wattle/entry.js",
  };
}

/** Names of sources from the plugin's folder; those of the library begin with `wattle/`. */
function sourceName(source, bundle) {
  const file = path.resolve(path.dirname(bundle), source);
  const own = path.relative(library, file);
  return own.startsWith("..") ? path.relative(process.cwd(), file).split(path.sep).join("/") : `wattle/${own}`;
}

async function bundled(main, bundle) {
  const { build } = await esbuild();
  const make = (isBus) =>
    build({
      ...options,
      stdin: entry(main),
      outfile: bundle,
      plugins: [contract(isBus)],
      sourcemap: isBus ? "external" : "inline",
      sourcesContent: false,
      // QuickJS has the names of functions from their places in the source.
      keepNames: false,
      charset: "utf8",
    });
  const file = (result, end) => result.outputFiles.find((file) => file.path.endsWith(end)).text;
  const declared = await declarations(file(await make(false), ".js"), bundle);
  const result = await make(true);
  const map = JSON.parse(file(result, ".map"));
  const sources = map.sources.map((source) => sourceName(source, bundle));
  const table = JSON.stringify({ sources, mappings: map.mappings });
  await writeFile(bundle, `${file(result, ".js")}globalThis[Symbol.for("wattle.source-map")] = ${table};\n`);
  await writeFile(path.join(path.dirname(bundle), "declared.json"), `${JSON.stringify(declared)}\n`);
}

/** Runs the plugin's top level, without a bus. */
async function declarations(text, bundle) {
  const file = `${bundle}.declare.mjs`;
  await writeFile(file, text);
  process.setSourceMapsEnabled(true);
  try {
    return (await import(pathToFileURL(file).href)).declared;
  } finally {
    await rm(file);
  }
}

async function run() {
  const [main, out] = process.argv.slice(2);
  if (out === undefined) throw new Error("use it as `node wattle/bundle.mjs ENTRY BUNDLE`");
  const bundle = path.resolve(out);
  await mkdir(path.dirname(bundle), { recursive: true });
  await bundled(path.resolve(main), bundle);
}

if (process.argv[1] && (await realpath(process.argv[1])) === path.join(here, "bundle.mjs")) {
  try {
    await run();
  } catch (error) {
    if (error.errors) {
      const { formatMessages } = await esbuild();
      const shown = await formatMessages(error.errors, { kind: "error", color: process.stderr.isTTY });
      process.stderr.write(shown.join(""));
    } else {
      // Places in the author's files: those of this library and of Node are of no use there.
      const lines = String(error.stack ?? error).split("\n");
      const shown = lines.filter((line) => !/^\s+at .*(node:internal|[/\\]wattle[/\\])/.test(line));
      process.stderr.write(`${shown.join("\n")}\n`);
    }
    process.exitCode = 1;
  }
}
