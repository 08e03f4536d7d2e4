// What the widgets draw with: elements, canvases, sliders, films, colours of the theme.

// The book's ten colours for classes (vaelib.plots.CLASS_COLORS).
const COLORS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
  "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"];

function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

/** Values in [0, 1], [C, H, W]; one channel is ink on paper, as everywhere in the book. */
function paint(canvas, values, [channels, height, width]) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const size = height * width;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      const v = Math.min(1, Math.max(0, values[channels === 3 ? c * size + i : i]));
      pixels.data[4 * i + c] = Math.round(255 * (channels === 3 ? v : 1 - v));
    }
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

/** A label and a slider in a row; calls `moved` with its value. */
function slider(id, text, { min, max, step, value }, moved) {
  const input = element("input", { type: "range", id, min, max, step, value });
  input.addEventListener("input", () => moved(Number(input.value)));
  return [element("div", { class: "control" }, element("label", { for: id }, text), input), input];
}

/** The pictures of a PNG, one below the other, on a canvas: gives the function that shows one. */
function film(canvas, { count, png }, describe) {
  const strip = new Image();
  let now = 0;
  const show = (t) => {
    now = t;
    if (!strip.width) return; // not loaded yet
    canvas.width = strip.width;
    canvas.height = strip.height / count;
    canvas.getContext("2d").drawImage(strip, 0, -t * canvas.height);
    canvas.setAttribute("aria-label", describe(t));
  };
  strip.addEventListener("load", () => show(now));
  strip.src = `data:image/png;base64,${png}`;
  return show;
}

/** Draw again when the reader changes between light and dark. */
function onTheme(draw) {
  const watch = new MutationObserver(draw);
  for (const [where, attribute] of [[document.documentElement, "data-theme"],
    [document.body, "data-jp-theme-light"]]) {
    watch.observe(where, { attributes: true, attributeFilter: [attribute] });
  }
}

/** A number as a person writes it, with a real minus sign: so many decimals, or what it needs. */
const spoken = (value, digits) => (digits === undefined ? String(+value.toPrecision(4)) :
  value.toFixed(digits)).replace("-", "\u2212");

/** Make an element a widget: named, without the still picture, and with its own voice. */
function begin(root, name) {
  root.replaceChildren();
  root.classList.add("explorer");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", name);
  const status = element("p", { class: "unheard", role: "status" });
  let timer;
  // A screen reader hears where a move has ended, not every step of it.
  const say = (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => { status.textContent = text; }, 600);
  };
  root.append(status);
  return say;
}

/** JupyterLab keeps off the keys only where the focused element itself says so. */
function keepKeys(root) {
  for (const e of root.querySelectorAll("[tabindex], button, input"))
    e.setAttribute("data-lm-suppress-shortcuts", "true");
}

/** Give a canvas the pixels that the screen has for it; sizes are in the page's pixels then. */
function sharpen(canvas) {
  const dense = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dense);
  canvas.height = Math.round(canvas.clientHeight * dense);
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  return context;
}

/** The colours that explore.css names, as they are in the reader's mode. */
const named = (style) => (name) => style.getPropertyValue(`--${name}`).trim();

/** Draw again when an element's size changes, or that of the screen's pixels. */
function onSize(canvas, draw) {
  new ResizeObserver(draw).observe(canvas);
  addEventListener("resize", draw);
}

// Another button than the first, or a second finger, does not draw.
const secondary = (event) => event.button || !event.isPrimary;

function button(text, clicked) {
  const b = element("button", { type: "button" }, text);
  b.addEventListener("click", clicked);
  return b;
}

/** A start for ids. Scripts in a page share no names but this one. */
function newId() {
  globalThis.explorers = (globalThis.explorers || 0) + 1;
  return `explorer-part-${globalThis.explorers}`;
}
