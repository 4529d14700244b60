import {readNifti, slicer} from "./volume.js";

const $ = (id) => document.getElementById(id);
const ACCEPT = {image: "image/*", audio: "audio/*", mri: ".nii,.nii.gz,.gz,.zip,.dcm"};
let models = [];
let indexes = [];
let files = {};  // stream -> the chosen file

function element(tag, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

async function call(path, options = {}) {
  const key = $("key").value, headers = {...options.headers};
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, {...options, headers});
  if (answer.status === 401) $("key-field").hidden = false;
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

function fail(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

const model = () => models.find((each) => each.id === $("run").value);
const search = () => $("task").selectedOptions[0]?.search;  // {index, stream, modality}, or a task
const task = () => model()?.tasks[$("task").value];

// Return [name, modality or null of a column, whether it takes several] of each input.
function fields() {
  if (search()) return [[search().stream, search().modality, false]];
  return Object.entries(task()?.inputs.properties ?? {}).map(([name, schema]) =>
    [name, model().streams[name]?.modality ?? null, schema.type === "array"]);
}

async function loadModels() {
  try {
    models = (await (await call("v1/models")).json()).data;
    indexes = (await (await call("v1/search")).json()).data;
    fail(null);
  } catch (error) {
    fail(error);
    return;
  }
  $("run").replaceChildren(...models.map((each) => new Option(each.id)));
  showTasks();
}

function showTasks() {
  const names = Object.keys(model()?.tasks ?? {});
  const searches = indexes.flatMap((index) => Object.entries(index.streams).map(([stream, modality]) =>
    Object.assign(new Option(`search ${index.id} by ${stream}`), {search: {index: index.id, stream, modality}})));
  $("task").replaceChildren(...names.map((name) => new Option(name)), ...searches);
  showInputs();
}

function showInputs() {
  files = {};
  $("answer").hidden = true;
  $("inputs").replaceChildren(...fields().map(([name, modality, many]) =>
    takesFile(modality) ? fileField(name, modality, many) : textField(name, modality)));
  showCalls();
}

const takesFile = (modality) => modality !== null && !["text", "action"].includes(modality);

function textField(name, modality) {
  const area = element("textarea", {name, rows: 2});
  area.dataset.input = modality === "action" ? "json" : "text";
  area.addEventListener("input", showCalls);
  const kind = area.dataset.input === "json" ? " (numbers as JSON)" : "";
  return element("label", {}, `${name}${kind}`, area);
}

function fileField(name, modality, many) {
  const input = element("input", {type: "file", accept: ACCEPT[modality] ?? "", multiple: many});
  const box = element("div", {className: "drop"});
  const shown = element("div");
  box.append(element("label", {}, `${name} (${modality}): choose a file, or drop it here`, input), shown);
  const take = async (chosen) => {
    files[name] = many ? [...chosen] : chosen[0];
    shown.replaceChildren(...await Promise.all([...chosen].map((file) => preview(file, modality))));
    showCalls();
  };
  input.addEventListener("change", () => take(input.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    box.addEventListener(kind, (event) => {
      event.preventDefault();
      box.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files);
    });
  }
  return box;
}

async function preview(file, modality) {
  if (modality === "image") return element("img", {src: URL.createObjectURL(file), alt: file.name});
  if (modality === "audio") {
    return element("audio", {controls: true, src: URL.createObjectURL(file)});
  }
  const volume = await readNifti(file).catch(() => null);
  return volume ? slicer(volume, null) : element("p", {}, file.name);
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.replace(/^data:[^,]*,/, "data:application/octet-stream;base64,"));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function inputs() {
  const values = {};
  for (const area of document.querySelectorAll("textarea[name]")) {
    if (!area.value) continue;
    try {
      values[area.name] = area.dataset.input === "json" ? JSON.parse(area.value) : area.value;
    } catch {
      throw new Error(`${area.name}: is no JSON; write numbers as [0.1, 0.2]`);
    }
  }
  for (const [name, chosen] of Object.entries(files)) {
    values[name] = Array.isArray(chosen) ? await Promise.all(chosen.map(dataUri)) : await dataUri(chosen);
  }
  return values;
}

function options() {
  try {
    return JSON.parse($("options-json").value || "{}");
  } catch {
    throw new Error("options: is no JSON; write {\"max_new_tokens\": 20}");
  }
}

// Return the path and the body of the request.
function request(values) {
  if (search()) {
    const {index, stream} = search();
    return ["v1/search", {index, stream, value: values[stream] ?? "", k: 8}];
  }
  const path = `v1/tasks/${encodeURIComponent($("task").value)}`;
  return [path, {model: $("run").value, inputs: values, options: options()}];
}

async function send(event) {
  event.preventDefault();
  $("send").disabled = true;
  const start = performance.now();
  try {
    const [path, body] = request(await inputs());
    const headers = {"Content-Type": "application/json"};
    const answer = await (await call(path, {method: "POST", headers, body: JSON.stringify(body)})).json();
    const result = answer.rows ?? answer.prediction;
    fail(null);
    $("seconds").textContent = `in ${((performance.now() - start) / 1000).toFixed(2)} s`;
    $("json").textContent = JSON.stringify(result, null, 1);
    $("shown").replaceChildren(...(answer.rows ? [table(answer.rows)] : await shown(result)));
    $("answer").hidden = false;
  } catch (error) {
    $("answer").hidden = true;
    fail(error);
  } finally {
    $("send").disabled = false;
  }
}

function table(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const text = (value) => typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value ?? "");
  return element("table", {},
    element("tr", {}, ...names.map((name) => element("th", {}, name))),
    ...rows.map((row) => element("tr", {}, ...names.map((name) => element("td", {}, text(row[name]))))));
}

// Elements for a prediction: texts, words with times, scores, boxes, masks, neighbours.
async function shown(prediction) {
  const parts = [];
  if (typeof prediction?.text === "string") {
    parts.push(element("p", {className: "text"}, prediction.text || "(no text)"));
  }
  for (const [word, start, end] of prediction?.words ?? []) {
    const times = element("small", {}, `${start.toFixed(2)}-${end.toFixed(2)} s`);
    parts.push(element("span", {className: "word"}, word, times));
  }
  if (prediction?.label !== undefined) {
    parts.push(element("p", {className: "text"}, String(prediction.label)));
  }
  const scores = prediction?.probabilities ?? prediction?.scores;
  if (scores && !Array.isArray(scores)) parts.push(bars(scores));
  const flat = (prediction?.boxes ?? []).filter((box) => box.length === 4);
  if (flat.length) parts.push(...await boxes(flat));
  for (const [name, value] of Object.entries(prediction ?? {})) {
    if (value && typeof value.file === "string") parts.push(...await mask(name, value.file));
  }
  return parts;
}

function bars(scores) {
  const rows = Object.entries(scores).sort((a, b) => b[1] - a[1]).slice(0, 12);
  const cells = rows.flatMap(([name, score]) => {
    const bar = element("div", {className: "bar"});
    bar.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
    return [element("span", {}, name), element("div", {}, bar), element("span", {}, score.toFixed(3))];
  });
  return element("div", {className: "bars"}, ...cells);
}

function firstFile(kind) {
  const name = Object.keys(files).find((each) => model().streams[each]?.modality === kind);
  return name && (Array.isArray(files[name]) ? files[name][0] : files[name]);
}

async function boxes(found) {
  const file = firstFile("image");
  if (!file) return [];
  const picture = await createImageBitmap(file);
  const canvas = element("canvas", {width: picture.width, height: picture.height});
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.strokeStyle = "#e0183c";
  context.lineWidth = Math.max(1, picture.width / 200);
  for (const [left, top, right, bottom] of found) context.strokeRect(left, top, right - left, bottom - top);
  return [canvas];
}

async function mask(name, id) {
  const stored = await (await call(`v1/files/${id}/content`)).blob();
  const volume = await readNifti(stored), file = firstFile("mri");
  const under = file && await readNifti(file);
  const same = under && volume && String(under.shape) === String(volume.shape);
  const link = element("a", {href: URL.createObjectURL(stored), download: `${name}.nii.gz`}, `Save ${name}`);
  return volume ? [slicer(same ? under : volume, same ? volume : null), link] : [link];
}

// The same call for curl and Python; contents of files are named, not copied.
function showCalls() {
  const named = Object.fromEntries(fields().map(([name, modality]) => {
    const area = document.querySelector(`textarea[name="${CSS.escape(name)}"]`);
    const file = Array.isArray(files[name]) ? files[name][0] : files[name];
    return [name, takesFile(modality) ? {file: file?.name ?? `${name}.file`} : area?.value ?? ""];
  }));
  const values = Object.fromEntries(Object.entries(named).map(([name, v]) => [name, v.file ? `\0${v.file}\0` : v]));
  const [path, body] = (() => { try { return request(values); } catch { return ["v1", {}]; } })();
  const url = new URL(path, location.href).href, json = JSON.stringify(body);
  const name = /\\u0000(.*?)\\u0000/g;
  const contents = [...json.matchAll(name)].map((found) => ` "$(base64 -w0 '${found[1]}')"`);
  const format = json.replace(/%/g, "%%").replace(/'/g, "'\\''").replace(name, "%s");
  const key = $("key").value ? " -H \"Authorization: Bearer $KEY\"" : "";
  $("curl").textContent = `printf '${format}'${contents.join("")} |\n`
    + `  curl ${url}${key} -H 'Content-Type: application/json' -d @-`;
  const code = json.replace(/"\\u0000(.*?)\\u0000"/g, (_, file) => `content("${file}")`)
    .replace(/\b(true|false|null)\b/g, (word) => ({true: "True", false: "False", null: "None"})[word]);
  $("python").textContent = "import base64, requests\n\n"
    + (code.includes("content(") ? "content = lambda path: base64.b64encode(open(path, \"rb\").read()).decode()\n" : "")
    + `answer = requests.post("${url}", json=${code})\n`
    + `print(answer.json()["${path === "v1/search" ? "rows" : "prediction"}"])`;
}

$("run").addEventListener("change", showTasks);
$("task").addEventListener("change", showInputs);
$("key").addEventListener("change", loadModels);
$("form").addEventListener("submit", send);
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => navigator.clipboard?.writeText($(button.dataset.of).textContent));
}
loadModels();
