// A worker for onnxruntime-web in node: frames on standard input and output. Its argument is the package's folder.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { answering } from "./answering.mjs";
import { wanted } from "./frames.mjs";

console.log = console.info = console.debug = console.error; // standard output is for frames
const ort = await import(pathToFileURL(join(process.argv[2], "dist", "ort.node.min.mjs")));
const answer = answering(ort);

const sent = (bytes) => new Promise((done) => process.stdout.write(bytes, done));

let pieces = [], size = 0, needed = 4;
for await (const piece of process.stdin) {
  pieces.push(piece);
  size += piece.length;
  while (size >= needed) {
    const bytes = Buffer.concat(pieces);
    pieces = [bytes];
    needed = wanted(bytes);
    if (size < needed) break;
    await sent(await answer(bytes)); // one question at a time: nothing comes after it before its answer
    pieces = [];
    size = 0;
    needed = 4;
  }
}
process.exit(0);
