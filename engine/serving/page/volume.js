// NIfTI files in the browser: values and shape, one slice at a time.

const TYPES = {
  2: [Uint8Array, 1], 4: [Int16Array, 2], 8: [Int32Array, 4], 16: [Float32Array, 4],
  64: [Float64Array, 8], 256: [Int8Array, 1], 512: [Uint16Array, 2], 768: [Uint32Array, 4],
};

async function inflated(buffer) {
  const head = new Uint8Array(buffer, 0, 2);
  if (head[0] !== 0x1f || head[1] !== 0x8b) return buffer;
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// Return {shape, values} of a file, or null if it is none.
export async function readNifti(file) {
  const buffer = await inflated(await file.arrayBuffer());
  if (buffer.byteLength < 352) return null;
  const view = new DataView(buffer);
  const little = view.getInt32(0, true) === 348;
  if (!little && view.getInt32(0, false) !== 348) return null;
  const shape = [1, 2, 3].map((i) => Math.max(1, view.getInt16(40 + 2 * i, little)));
  const [kind, size] = TYPES[view.getInt16(70, little)] ?? [null, 0];
  if (kind === null) return null;
  const start = view.getFloat32(108, little), count = shape[0] * shape[1] * shape[2];
  let bytes = buffer.slice(start, start + count * size);
  if (!little && size > 1) {
    const swapped = new Uint8Array(bytes);
    for (let i = 0; i < swapped.length; i += size) swapped.subarray(i, i + size).reverse();
    bytes = swapped.buffer;
  }
  return {shape, values: new kind(bytes)};
}

// Return the slice with most of the mask, or the middle one.
function firstSlice(volume, mask) {
  const [width, height, depth] = volume.shape, counts = new Array(depth).fill(0);
  if (mask) mask.values.forEach((value, i) => { if (value > 0.5) counts[Math.floor(i / (width * height))]++; });
  const most = Math.max(...counts);
  return most ? counts.indexOf(most) : Math.floor(depth / 2);
}

// Return an element that shows a volume slice by slice; mask: {shape, values} on the same grid.
export function slicer(volume, mask) {
  const box = document.createElement("div"), canvas = document.createElement("canvas");
  const label = document.createElement("label"), slider = document.createElement("input");
  const [width, height, depth] = volume.shape;
  canvas.width = width; canvas.height = height;
  canvas.style.width = `${Math.min(440, width * Math.ceil(240 / width))}px`;
  slider.type = "range"; slider.min = 0; slider.max = depth - 1; slider.value = firstSlice(volume, mask);
  let low = Infinity, high = -Infinity;
  for (const v of volume.values) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  function draw() {
    const z = Number(slider.value), picture = new ImageData(width, height);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const from = x + width * (y + height * z), to = 4 * (x + width * (height - 1 - y));
      const grey = 255 * (volume.values[from] - low) / (high - low || 1);
      const inside = mask && mask.values[from] > 0.5;
      picture.data.set([inside ? 255 : grey, inside ? grey * 0.4 : grey, inside ? grey * 0.4 : grey, 255], to);
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
    label.firstChild.textContent = `Slice ${z + 1} of ${depth}`;
  }
  label.append(document.createTextNode(""), slider);
  slider.addEventListener("input", draw);
  box.append(canvas, label);
  draw();
  return box;
}
