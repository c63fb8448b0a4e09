// Answers questions with onnxruntime-web, in node and in a page.

import { decode, encode } from "./frames.mjs";

const NOTHING = new Map();

// A function from a frame's bytes to the answer's; `seen` is told what was asked and answered.
export function answering(ort, seen = () => {}) {
  let session, outputs;
  ort.env.logLevel = "fatal";

  const feeds = (arrays) =>
    Object.fromEntries([...arrays].map(([name, { dtype, data, shape }]) => [name, new ort.Tensor(dtype, data, shape)]));

  async function answer({ header, arrays }) {
    switch (header.do) {
      case "version":
        return [{ version: ort.env.versions.web ?? ort.env.versions.common }, NOTHING];
      case "open":
        outputs = header.outputs;
        ort.env.wasm.numThreads = header.threads ?? 1;
        session = await ort.InferenceSession.create(arrays.get("model").data, { executionProviders: ["wasm"] });
        return [{}, NOTHING];
      case "run": {
        const found = await session.run(feeds(arrays), outputs);
        return [{}, new Map(outputs.map((name) => [name, told(found[name])]))];
      }
      case "seconds": {
        const inputs = feeds(arrays), seconds = [];
        for (let time = 0; time < header.times; time++) {
          const begun = performance.now();
          await session.run(inputs, outputs);
          seconds.push((performance.now() - begun) / 1000);
        }
        return [{ seconds }, NOTHING];
      }
    }
    throw new Error(`asked for '${header.do}'`);
  }

  return async function (bytes) {
    const asked = decode(bytes);
    try {
      const [header, arrays] = await answer(asked);
      seen(asked, header, arrays);
      return encode(header, arrays);
    } catch (error) {
      seen(asked, { error: String(error?.message ?? error) }, NOTHING);
      return encode({ error: String(error?.message ?? error) }, NOTHING);
    }
  };
}

const told = ({ type, data, dims }) => ({ dtype: type, data, shape: dims });
