// The page's side of the browser runtime: asks its server for questions, answers them, and shows what it does.

import { answering } from "./answering.mjs";

const show = (id, text, wrong = false) => {
  const cell = document.getElementById(id);
  cell.textContent = text;
  cell.className = wrong ? "wrong" : "";
};
const ports = (values) => values.map(({ name, shape }) => `${name} [${(shape ?? ["..."]).join(", ")}]`).join("; ");
const some = ({ data, shape }) => {
  const numbers = [...data.slice(0, 6)].map((value) => (typeof value === "number" ? Number(value.toPrecision(5)) : value));
  return `[${shape.join(", ")}]: ${numbers.join(", ")}${data.length > 6 ? ", ..." : ""}`;
};
const all = (arrays) => [...arrays].map(([name, array]) => `${name} ${some(array)}`).join("; ");

let runs = 0;

function seen({ header: asked, arrays }, header, outputs) {
  if (header.error) return show(asked.do === "open" ? "model" : "result", header.error, true);
  if (asked.do === "open") {
    show("model", `${asked.name || "unnamed"}, ${arrays.get("model").data.length.toLocaleString("en")} bytes, loaded`);
    show("takes", ports(asked.inputs));
    show("gives", asked.outputs.join(", "));
  } else if (asked.do === "run") {
    show("runs", String(++runs));
    show("given", all(arrays));
    show("result", all(outputs));
  } else if (asked.do === "seconds") {
    const sorted = [...header.seconds].sort((a, b) => a - b);
    show("runs", String((runs += sorted.length)));
    show("time", `${(sorted[sorted.length >> 1] * 1000).toFixed(3)} ms in ${sorted.length} runs`);
  }
}

const ort = await import("./ort/ort.wasm.min.mjs");
ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
const answer = answering(ort, seen);
show("runtime", `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common} in ${navigator.userAgent}`);

for (;;) {
  const question = await fetch("question", { cache: "no-store" });
  if (question.status === 204) continue; // nothing asked for a while
  if (!question.ok) break;
  await fetch("answer", { method: "POST", body: await answer(new Uint8Array(await question.arrayBuffer())) });
}
show("session", "closed by graftkit");
