// Frames in JavaScript, as frames.py describes them: the header's length, the header as JSON, the arrays' numbers.

const KINDS = {
  bool: Uint8Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array,
  uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, float16: Uint16Array, float32: Float32Array,
  float64: Float64Array,
};
const sizeOf = ({ dtype, shape }) => shape.reduce((a, b) => a * b, KINDS[dtype].BYTES_PER_ELEMENT);

// How many bytes there have to be: of the whole frame, where its header is among these.
export function wanted(bytes) {
  const head = bytes.length < 4 ? 4 : headEnd(bytes);
  return bytes.length < head ? head : headerOf(bytes).arrays.reduce((sum, entry) => sum + sizeOf(entry), head);
}

// A whole frame.
export function decode(bytes) {
  const header = headerOf(bytes);
  const arrays = new Map();
  let at = headEnd(bytes);
  for (const entry of header.arrays) {
    const { buffer } = new Uint8Array(bytes.subarray(at, (at += sizeOf(entry)))); // a copy: numbers begin anywhere
    arrays.set(entry.name, { ...entry, data: new KINDS[entry.dtype](buffer) });
  }
  return { header, arrays };
}

const headEnd = (bytes) => 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
const headerOf = (bytes) => JSON.parse(new TextDecoder().decode(bytes.subarray(4, headEnd(bytes))));

// `arrays` is a map from name to {dtype, shape, data}.
export function encode(header, arrays) {
  const entries = [...arrays].map(([name, { dtype, shape }]) => ({ name, dtype, shape: [...shape] }));
  const head = new TextEncoder().encode(JSON.stringify({ ...header, arrays: entries }));
  const pieces = [...arrays.values()].map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  const frame = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 4 + head.length));
  new DataView(frame.buffer).setUint32(0, head.length);
  frame.set(head, 4);
  let at = 4 + head.length;
  for (const piece of pieces) {
    frame.set(piece, at);
    at += piece.length;
  }
  return frame;
}
