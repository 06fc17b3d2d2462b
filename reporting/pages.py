"""Pages that open in any browser, without a server or a network: how a training goes, and what was translated.

Each is a fixed ``index.html`` beside a ``data.js`` that is written anew; the training page reads it again every few
seconds. (A page from a disk may not read a JSON file, but it may run a script.)
"""

import json
import os
from pathlib import Path
from urllib.parse import quote

STYLE = """
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>
 body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
 h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem }
 img { background: #eee } #grid { width: 100%; image-rendering: pixelated }
 #curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
 figure { margin: 0 } figcaption { font-size: .85rem; color: #555 } svg { width: 100%; background: #f6f6f6 }
 table { border-collapse: collapse }
 td { padding: 0 1.5rem 0 0; font: .85rem ui-monospace, monospace }
 input[type=range] { width: 100% } input[type=search] { font: inherit; width: 20rem }
 .pair { display: inline-block; margin: 0 1rem 1rem 0; content-visibility: auto; contain-intrinsic-size: 340px 200px }
 .pair img { width: 160px; height: 160px; object-fit: contain; vertical-align: top }
</style>
"""

RUN = f"""<!doctype html><html lang="en"><head><title>Training</title>{STYLE}</head><body>
<h1 id="title"></h1>
<p>Columns: A, A to B, and back; B, B to A, and back (with masks behind the real images, where there are any).</p>
<img id="grid" alt="sample grid">
<label>step <output id="step"></output><input id="slider" type="range" min="0" value="0"></label>
<h2>Curves</h2><div id="curves"></div>
<h2>Options</h2><table id="options"></table>
<script>
const byId = id => document.getElementById(id);
let newest = true;  // follow the newest grid until the slider is moved away from it
function showGrid() {{
  const grids = run.grids, i = +byId("slider").value;
  if (!grids.length) return;
  byId("grid").src = grids[i] + ".png";
  byId("step").textContent = grids[i];
  newest = i === grids.length - 1;
}}
function curve(name, points) {{
  const xs = points.map(p => p[0]), ys = points.map(p => p[1]);
  const low = Math.min(...ys), high = Math.max(...ys), first = Math.min(...xs), last = Math.max(...xs);
  const place = ([x, y]) => [300 * (x - first) / (last - first || 1), 95 - 90 * (y - low) / (high - low || 1)];
  const figure = document.createElement("figure"), line = points.map(p => place(p).join()).join(" ");
  figure.innerHTML = `<svg viewBox="0 0 300 100"><polyline fill="none" stroke="#06c" stroke-width="1.5"/></svg>` +
    `<figcaption></figcaption>`;
  figure.querySelector("polyline").setAttribute("points", line);
  figure.querySelector("figcaption").textContent =
    `${{name}}: ${{ys.at(-1).toPrecision(3)}} (from ${{low.toPrecision(3)}} to ${{high.toPrecision(3)}})`;
  return figure;
}}
function show() {{
  byId("title").textContent = document.title = `${{run.options.dataset_name}}: step ${{run.step}}`;
  byId("slider").max = Math.max(0, run.grids.length - 1);
  if (newest) byId("slider").value = byId("slider").max;
  showGrid();
  byId("curves").replaceChildren(...Object.entries(run.series).map(([name, points]) => curve(name, points)));
  byId("options").replaceChildren(...Object.entries(run.options).map(pair => {{
    const row = document.createElement("tr");
    for (const text of pair) row.insertCell().textContent = text ?? "";
    return row;
  }}));
}}
function load() {{
  const script = document.createElement("script");
  script.src = "data.js?" + Date.now();
  script.onload = () => {{ show(); script.remove(); }};
  document.body.append(script);
}}
byId("slider").oninput = showGrid;
load();
setInterval(load, 5000);
</script></body></html>
"""

RESULTS = f"""<!doctype html><html lang="en"><head><title>Translations</title>{STYLE}</head><body>
<h1>Translations</h1>
<p><input id="search" type="search" placeholder="name contains …"> <output id="count"></output></p>
<div id="pairs"></div>
<script src="data.js"></script>
<script>
const pairs = results.map(([direction, name, input, output]) => {{
  const figure = document.createElement("figure");
  figure.className = "pair";
  for (const source of [input, output]) {{
    const image = document.createElement("img");
    image.loading = "lazy";
    image.src = source;
    figure.append(image);
  }}
  figure.append(document.createElement("figcaption"));
  figure.lastChild.textContent = `${{direction}} ${{name}}`;
  return figure;
}});
const search = document.getElementById("search");
search.oninput = () => {{
  let shown = 0;
  for (const pair of pairs) {{
    pair.hidden = !pair.lastChild.textContent.toLowerCase().includes(search.value.toLowerCase());
    pair.style.display = pair.hidden ? "none" : "";
    shown += !pair.hidden;
  }}
  document.getElementById("count").textContent = `${{shown}} of ${{pairs.length}}`;
}};
document.getElementById("pairs").append(...pairs);
search.oninput();
</script></body></html>
"""


def write_run(folder, options, step, curves):
    """The page of a training run in ``folder``, with the grids that are there and ``curves``, those of Scalars."""
    series = {name: curve.points for name, curve in curves.items()}
    grids = sorted(int(path.stem) for path in Path(folder).glob("*.png") if path.stem.isdigit())
    run = {"step": step, "grids": grids, "series": series, "options": vars(options)}
    write(folder, RUN, "run", run)


def write_results(folder, translations):
    """The page of ``translations``, tuples (direction, name, path of the input, path of the output), in ``folder``."""

    def address(path):
        return quote(os.path.relpath(path, folder).replace(os.sep, "/"))

    results = [[direction, str(name), address(source), address(made)] for direction, name, source, made in translations]
    write(folder, RESULTS, "results", results)


def write(folder, page, name, data):
    (Path(folder) / "index.html").write_text(page, encoding="utf-8")
    temporary = Path(folder) / "data.js.tmp"
    temporary.write_text(f"var {name} = {json.dumps(data)};\n", encoding="utf-8")
    os.replace(temporary, Path(folder) / "data.js")  # whole at any time, for who reads it
