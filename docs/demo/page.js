// The page: images in (by drop, paste, file, camera, example), before and after, and the translation out.
const byId = id => document.getElementById(id);
const about = await (await fetch("models.json")).json();
const ort = new URL(about.ort, location).href;
const SMALLEST = 128; // pixels a side: tiles are not made smaller when memory is short

let worker, busy, shown; // shown: {name, width, height}
const model = () => about.models[byId("direction").selectedIndex];

function say(text, failed = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("failed", failed);
}

// ---- in ----

async function open(blob, name) {
  let bitmap;
  say("reading …");
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  } catch {
    return say(`${name} is not an image that this browser can read`, true);
  }
  show(bitmap, bitmap.width, bitmap.height, name);
}

function show(source, width, height, name) {
  byId("save").disabled = true;
  const before = byId("before");
  for (const canvas of [before, byId("after")]) [canvas.width, canvas.height] = [width, height];
  const context = before.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // shows through where the image is transparent, as in training
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  byId("compare").style.width = `${Math.max(width, 384)}px`;
  byId("compare").hidden = false;
  byId("hint").hidden = true;
  shown = { name, width, height };
  translate(model().tile);
}

// ---- through ----

function translate(side) {
  if (busy || !worker) {
    worker?.terminate(); // it is at an older image, or its memory was full
    worker = new Worker("worker.js", { type: "module" });
  }
  const { width, height } = shown, [before, after] = [byId("before"), byId("after")];
  let data;
  try {
    ({ data } = before.getContext("2d").getImageData(0, 0, width, height));
  } catch {
    return say(`${width} × ${height} pixels are too many for this browser; take a smaller image`, true);
  }
  busy = true;
  after.getContext("2d").clearRect(0, 0, width, height);
  byId("save").disabled = true;
  byId("progress").hidden = false;
  byId("progress").removeAttribute("value");
  say("translating …");
  const started = performance.now();
  worker.onmessage = ({ data }) => {
    if (data.share) return void (byId("progress").value = data.share);
    byId("progress").hidden = true;
    busy = !data.pixels; // after a failure the next image gets a new worker
    if (data.pixels) {
      after.getContext("2d").putImageData(new ImageData(data.pixels, width, height), 0, 0);
      byId("save").disabled = false;
      return say(`${width} × ${height}, translated in ${((performance.now() - started) / 1000).toFixed(1)} s`);
    }
    if (!data.memory) return say(data.failed, true);
    if (side > SMALLEST) return translate(Math.max(SMALLEST, Math.floor(side / 2)));
    say(`This browser has too little memory for ${width} × ${height}; close other pages, or take a smaller image`, true);
  };
  worker.onerror = () => {
    byId("progress").hidden = true;
    say("The translator did not start: is worker.js beside this page?", true);
  };
  const file = new URL(model().file, location).href;
  worker.postMessage({ ort, model: { ...model(), file }, pixels: data, width, height, side }, [data.buffer]);
}

// ---- out ----

byId("save").onclick = () => byId("after").toBlob(blob => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${shown.name.replace(/\.[^.]*$/, "")}_${model().direction}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});

// ---- the controls ----

byId("choose").onclick = () => byId("file").click();
byId("file").onchange = ({ target }) => {
  if (target.files.length) open(target.files[0], target.files[0].name);
  target.value = ""; // so that the same file can be chosen again
};
addEventListener("paste", ({ clipboardData }) => {
  const [file] = clipboardData.files;
  if (file) open(file, "pasted");
});
addEventListener("dragover", event => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
addEventListener("dragleave", () => byId("drop").classList.remove("over"));
addEventListener("drop", event => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
  else say("That was not a file; save the image first, then drop it here", true);
});
byId("slider").oninput = ({ target }) => byId("compare").style.setProperty("--split", `${target.value}%`);

byId("camera").onclick = async () => {
  const video = byId("video");
  if (video.srcObject) {
    if (!video.videoWidth) return; // no frame has come yet
    show(video, video.videoWidth, video.videoHeight, "camera");
    for (const track of video.srcObject.getTracks()) track.stop();
    video.srcObject = null;
  } else {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch {
      return say("There is no camera, or this page may not use it (it needs https, or localhost)", true);
    }
  }
  video.hidden = !video.srcObject;
  byId("camera").textContent = video.srcObject ? "Take the picture" : "Camera";
};

function offerExamples() {
  byId("examples").replaceChildren(...model().examples.map(address => {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = address;
    image.alt = "an example to translate";
    button.append(image);
    button.onclick = async () => open(await (await fetch(address)).blob(), address.split("/").pop());
    return button;
  }));
}

byId("title").textContent = document.title = `${about.name}: translate an image`;
byId("direction").append(...about.models.map(({ direction }) => new Option(direction.replace("to", " to "))));
byId("directions").hidden = about.models.length < 2;
byId("direction").onchange = () => {
  offerExamples();
  if (shown) translate(model().tile);
};
offerExamples();
say("");
