/**
 * Bundle the pages' modules into static/dist.
 *
 * Each static/js/pages/<name>.js becomes static/dist/<name>.js; what several
 * share lands once in static/dist/chunks. xterm's style sheet goes beside them.
 * The result appears whole: it is built in a folder of its own and then moved.
 */

import { chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { build } from "esbuild";

const PAGES = "static/js/pages";
const DIST = "static/dist";

function entryPoints() {
  mkdirSync(PAGES, { recursive: true });
  const names = readdirSync(PAGES).filter((name) => name.endsWith(".js"));
  return names.map((name) => `${PAGES}/${name}`);
}

const draft = mkdtempSync("static/.dist-");
try {
  await build({
    entryPoints: entryPoints(),
    outdir: draft,
    chunkNames: "chunks/[name]-[hash]",
    bundle: true,
    format: "esm",
    splitting: true,
    minify: true,
    target: "es2022",
    legalComments: "linked",
    logLevel: "warning",
  });
  await build({
    entryPoints: { xterm: "@xterm/xterm/css/xterm.css" },
    outdir: draft,
    minify: true,
    logLevel: "warning",
  });
  // Run as a worker of its own by the viewer of PDF files.
  await build({
    entryPoints: { "pdf.worker": "pdfjs-dist/build/pdf.worker.min.mjs" },
    outdir: draft,
    format: "esm",
    minify: true,
    legalComments: "linked",
    logLevel: "warning",
  });
  chmodSync(draft, 0o755);
  rmSync(DIST, { recursive: true, force: true });
  renameSync(draft, DIST);
} finally {
  rmSync(draft, { recursive: true, force: true });
}
