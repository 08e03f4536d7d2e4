// The book's widgets, the latent explorer and the sliders: one source for live Jupyter and Colab
// (through anywidget, `export default`) and for pages without a kernel (`start`). No imports, no
// requests.
//
// A network is a list of steps, each an object with an `op` and the offsets of its weights in one
// Float32Array; vaelib/explore.py writes it. Values are flat arrays, in PyTorch's layout.

// ---- weights --------------------------------------------------------------------------------

/** float16, little-endian bytes -> Float32Array. */
export function unpack(bytes) {
  const out = new Float32Array(bytes.length >> 1);
  for (let i = 0; i < out.length; i++) {
    const half = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const sign = half & 0x8000 ? -1 : 1, power = (half >> 10) & 31, rest = half & 1023;
    // Infinity and nan are never exported.
    out[i] = power ? sign * (1 + rest / 1024) * 2 ** (power - 15) : sign * rest * 2 ** -24;
  }
  return out;
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// ---- networks -------------------------------------------------------------------------------

/** The error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 +
    t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

const sigmoid = (v) => 1 / (1 + Math.exp(-v));
const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

const activations = {
  relu: (v) => Math.max(v, 0),
  silu: (v) => v * sigmoid(v),
  gelu: (v) => 0.5 * v * (1 + erf(v / Math.SQRT2)),
  tanh: Math.tanh,
  elu: (v) => (v > 0 ? v : Math.expm1(v)),
  softplus,
  sigmoid,
};

const layers = {
  linear({ sizes: [inputs, outputs], weight, bias }, w, x) {
    const y = new Float32Array(outputs);
    for (let o = 0, k = weight; o < outputs; o++) {
      let sum = w[bias + o];
      for (let i = 0; i < inputs; i++) sum += w[k++] * x[i];
      y[o] = sum;
    }
    return y;
  },

  // Groups of channels with mean zero and variance one, then a scale and shift for each channel.
  norm({ groups, channels, eps, weight, bias }, w, x) {
    const y = new Float32Array(x.length), size = x.length / groups, each = x.length / channels;
    for (let g = 0; g < groups; g++) {
      let sum = 0, squares = 0;
      for (let i = g * size; i < (g + 1) * size; i++) sum += x[i];
      const mean = sum / size;
      for (let i = g * size; i < (g + 1) * size; i++) squares += (x[i] - mean) ** 2;
      const scale = 1 / Math.sqrt(squares / size + eps);
      for (let i = g * size; i < (g + 1) * size; i++) {
        const c = Math.floor(i / each);
        y[i] = (x[i] - mean) * scale * w[weight + c] + w[bias + c];
      }
    }
    return y;
  },

  affine({ channels, weight, bias }, w, x) {
    const each = x.length / channels;
    return x.map((v, i) => {
      const c = Math.floor(i / each);
      return v * w[weight + c] + w[bias + c];
    });
  },

  residual({ body }, w, x) {
    const y = run(body, w, x);
    return x.map((v, i) => v + y[i]);
  },

  // Both convolutions walk over the kernel and add a scaled, shifted image to an output channel;
  // the limits of the walk leave out what lies in the padding.
  conv({ channels: [inputs, outputs], size: [h, wd], kernel, stride, padding, weight, bias }, w, x) {
    const H = Math.floor((h + 2 * padding - kernel) / stride) + 1;
    const W = Math.floor((wd + 2 * padding - kernel) / stride) + 1;
    const y = new Float32Array(outputs * H * W);
    for (let o = 0, k = weight; o < outputs; o++) {
      y.fill(w[bias + o], o * H * W, (o + 1) * H * W);
      for (let c = 0; c < inputs; c++) {
        for (let a = -padding; a < kernel - padding; a++) {
          const top = Math.max(0, Math.ceil(-a / stride));
          const bottom = Math.min(H, Math.floor((h - 1 - a) / stride) + 1);
          for (let b = -padding; b < kernel - padding; b++) {
            const value = w[k++];
            const left = Math.max(0, Math.ceil(-b / stride));
            const right = Math.min(W, Math.floor((wd - 1 - b) / stride) + 1);
            for (let i = top; i < bottom; i++) {
              const to = (o * H + i) * W, from = (c * h + i * stride + a) * wd + b;
              for (let j = left; j < right; j++) y[to + j] += value * x[from + j * stride];
            }
          }
        }
      }
    }
    return y;
  },

  transposed({ channels: [inputs, outputs], size: [h, wd], kernel, stride, padding, extra, weight,
    bias }, w, x) {
    const H = (h - 1) * stride - 2 * padding + kernel + extra[0];
    const W = (wd - 1) * stride - 2 * padding + kernel + extra[1];
    const y = new Float32Array(outputs * H * W);
    for (let o = 0; o < outputs; o++) y.fill(w[bias + o], o * H * W, (o + 1) * H * W);
    for (let c = 0, k = weight; c < inputs; c++) {
      for (let o = 0; o < outputs; o++) {
        for (let a = -padding; a < kernel - padding; a++) {
          const top = Math.max(0, Math.ceil(-a / stride));
          const bottom = Math.min(h, Math.floor((H - 1 - a) / stride) + 1);
          for (let b = -padding; b < kernel - padding; b++) {
            const value = w[k++];
            const left = Math.max(0, Math.ceil(-b / stride));
            const right = Math.min(wd, Math.floor((W - 1 - b) / stride) + 1);
            for (let i = top; i < bottom; i++) {
              const to = (o * H + i * stride + a) * W + b, from = (c * h + i) * wd;
              for (let j = left; j < right; j++) y[to + j * stride] += value * x[from + j];
            }
          }
        }
      }
    }
    return y;
  },
};

/** Run a network: steps, all weights, one flat input -> one flat output. */
export function run(steps, weights, x) {
  for (const step of steps) {
    x = step.op in activations ? x.map(activations[step.op]) : layers[step.op](step, weights, x);
  }
  return x;
}

// ---- drawing on the page ----------------------------------------------------------------------

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

// ---- the explorer -----------------------------------------------------------------------------

/** The pad, the image and the sliders: all that shows one latent point. */
class Explorer {
  constructor(root, spec, weights, z, tell) {
    Object.assign(this, { root, spec, weights, tell });
    this.id = newId();
    this.z = Array.from(z);
    this.waiting = false;
    this.ellipse = null;
    this.pins = {};
    this.say = begin(root, "Latent explorer");
    this.addPad();
    if (spec.points) this.addLegend();
    this.addSliders();
    if (spec.interpolate) this.addPins();
    if (spec.encoder) this.addPaper();
    if (spec.replay) this.addReplay();
    keepKeys(root);
    this.update();
  }

  addPad() {
    const [, height, width] = this.spec.shape, [i, j] = this.spec.axes;
    this.dots = element("canvas", { "aria-hidden": "true" });
    this.knob = element("span", { class: "knob", "aria-hidden": "true" });
    this.value = element("p", { id: `${this.id}-value` });
    const hint = element("p", { id: `${this.id}-hint` },
      "Drag in the square, or use the arrow keys (with Shift, larger steps; Home, the middle).");
    this.pad = element("div", { class: "pad", tabindex: 0, role: "application",
      "aria-roledescription": "two-dimensional slider",
      "aria-label": `Latent plane, z${i + 1} to the right and z${j + 1} up`,
      "aria-describedby": `${this.id}-value ${this.id}-hint` }, this.dots, this.knob);
    this.image = element("canvas", { class: "image", width, height, role: "img",
      style: `aspect-ratio: ${width} / ${height}` });
    this.panels = element("div", { class: "panels" });
    this.addPanel("Latent plane", this.pad);
    this.addPanel("Decoded", this.image);
    this.root.append(this.panels, this.value, hint);

    const inside = (v) => Math.min(this.spec.span, Math.max(-this.spec.span, v));
    const follow = (event) => {
      const box = this.pad.getBoundingClientRect(), { span } = this.spec;
      this.z[i] = inside(((event.clientX - box.left) / box.width * 2 - 1) * span);
      this.z[j] = inside((1 - (event.clientY - box.top) / box.height * 2) * span);
      this.update();
    };
    this.pad.addEventListener("pointerdown", (event) => {
      if (secondary(event)) return;
      this.pad.setPointerCapture(event.pointerId);
      this.pad.focus({ preventScroll: true });
      follow(event);
    });
    this.pad.addEventListener("pointermove", (event) => {
      if (this.pad.hasPointerCapture(event.pointerId)) follow(event);
    });
    this.pad.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
      const step = event.shiftKey ? 0.5 : 0.1;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step],
        ArrowDown: [0, -step] };
      if (event.key === "Home") this.z[i] = this.z[j] = 0;
      else if (event.key in moves) {
        this.z[i] = inside(this.z[i] + moves[event.key][0]);
        this.z[j] = inside(this.z[j] + moves[event.key][1]);
      } else return;
      event.preventDefault();
      event.stopPropagation();
      this.update();
    });
    onSize(this.dots, () => this.drawDots());
    onTheme(() => this.drawDots());
  }

  addPanel(caption, ...content) {
    const name = element("span", { "aria-hidden": "true" }, caption);
    this.panels.append(element("div", { class: "panel" }, name, ...content));
  }

  /** A slider for every latent, the pad's own two included, up to ten. */
  addSliders() {
    const { axes, latentDim, span } = this.spec;
    const others = [...Array(latentDim).keys()].filter((d) => !axes.includes(d));
    this.sliders = [...axes, ...others.slice(0, 8)].map((d) => {
      const range = { min: -span, max: span, step: 0.05, value: this.z[d] };
      const [row, input] = slider(`${this.id}-z${d}`, `z${d + 1}`, range, (value) => {
        this.z[d] = value;
        this.update();
      });
      this.root.append(row);
      return [d, input];
    });
  }

  addLegend() {
    const list = element("ul", { class: "legend", "aria-label": "Classes of the dots" });
    this.spec.points.classes.forEach((name, c) => {
      const dot = element("span", { style: `background: ${COLORS[c]}`, "aria-hidden": "true" });
      list.append(element("li", {}, dot, String(name)));
    });
    this.root.append(list);
  }

  addPins() {
    const range = { min: 0, max: 1, step: 0.01, value: 0 };
    const [row, input] = slider(`${this.id}-way`, "A to B", range, (t) => {
      const { A, B } = this.pins;
      if (A && B) this.move(A.map((a, d) => a + t * (B[d] - a)));
    });
    input.disabled = true;
    const pin = (name) => button(`Pin ${name} here`, () => {
      this.pins[name] = [...this.z];
      input.disabled = !(this.pins.A && this.pins.B);
      this.drawDots();
    });
    this.root.append(element("div", { class: "control" }, pin("A"), pin("B")), row);
  }

  addReplay() {
    const { count } = this.spec.replay;
    const canvas = element("canvas", { class: "replay", role: "img" });
    const show = film(canvas, this.spec.replay,
      (t) => `The latent grid, picture ${t + 1} of ${count}`);
    const range = { min: 0, max: count - 1, step: 1, value: count - 1 };
    const [row] = slider(`${this.id}-replay`, "Replay", range, show);
    show(count - 1);
    this.root.append(element("div", { class: "control" }, canvas), row);
  }

  addPaper() {
    this.paper = new Paper(this);
    this.addPanel("Your drawing", this.paper.canvas, this.paper.controls, this.paper.report);
  }

  /** Where a point of the pad's two latents lies, in shares of its side, from left and top. */
  share(right, up) {
    const { span } = this.spec;
    return [(right / span + 1) / 2, (1 - up / span) / 2];
  }

  /** The same for a whole z. */
  place(z) {
    const [i, j] = this.spec.axes;
    return this.share(z[i], z[j]);
  }

  /** Points, the posterior's ellipse and the pins, on the canvas behind the knob. */
  drawDots() {
    const { spec, ellipse } = this, size = this.dots.clientWidth, [i, j] = spec.axes;
    if (!size) return; // folded away
    const context = sharpen(this.dots), style = getComputedStyle(this.root), color = named(style);
    context.strokeStyle = color("line");
    context.strokeRect(size / 2, 0, 0, size);
    context.strokeRect(0, size / 2, size, 0);
    const { z = [], y = [], classes = [] } = spec.points || {};
    const dots = z.map(([a, b]) => this.share(a, b).map((share) => share * size));
    dots.forEach(([x, top], n) => {
      context.fillStyle = COLORS[y[n]];
      context.beginPath();
      context.arc(x, top, size > 180 ? 2.2 : 1.6, 0, 7);
      context.fill();
    });
    // Colour alone tells some readers nothing: each class has its name amid its dots.
    const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    context.font = `bold ${size > 180 ? 15 : 12}px ${style.fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.lineJoin = "round";
    const write = (text, x, top) => {
      context.strokeStyle = color("ground");
      context.strokeText(text, x, top);
      context.fillStyle = style.color;
      context.fillText(text, x, top);
    };
    classes.forEach((name, c) => {
      const own = dots.filter((_, n) => y[n] === c);
      write(String(name), middle(own.map((d) => d[0])), middle(own.map((d) => d[1])));
    });
    this.knob.classList.toggle("open", Boolean(ellipse));
    if (ellipse) {
      const [x, top] = this.place(ellipse.mean), scale = size / spec.span; // 2 sigma
      context.strokeStyle = style.color;
      context.lineWidth = 2;
      context.beginPath();
      context.ellipse(x * size, top * size, ellipse.sigma[i] * scale, ellipse.sigma[j] * scale, 0, 0, 7);
      context.stroke();
    }
    for (const [name, pin] of Object.entries(this.pins)) {
      const [x, top] = this.place(pin);
      write(name, x * size, top * size);
    }
  }

  /** The class of the dot that lies nearest, for those who do not see the image. */
  nearest() {
    const { points, axes: [i, j] } = this.spec;
    if (!points) return "";
    const far = points.z.map(([a, b]) => (a - this.z[i]) ** 2 + (b - this.z[j]) ** 2);
    return `; the nearest dot is of class ${points.classes[points.y[far.indexOf(Math.min(...far))]]}`;
  }

  /** Go to z, told from outside. */
  move(z) {
    this.z = Array.from(z);
    this.update();
  }

  update() {
    const [i, j] = this.spec.axes, [left, top] = this.place(this.z);
    const shown = (share) => `${100 * Math.min(1, Math.max(0, share))}%`; // a code may lie beyond
    this.knob.style.left = shown(left);
    this.knob.style.top = shown(top);
    for (const [d, input] of this.sliders) {
      input.value = this.z[d];
      input.setAttribute("aria-valuetext", spoken(this.z[d], 2));
    }
    this.value.textContent =
      `z${i + 1} = ${spoken(this.z[i], 2)}, z${j + 1} = ${spoken(this.z[j], 2)}`;
    if (this.waiting) return; // one decoding a frame, at most
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const started = performance.now();
      paint(this.image, this.decode(this.z), this.spec.shape);
      this.root.dataset.milliseconds = (performance.now() - started).toFixed(2);
      const here = `${this.value.textContent}${this.nearest()}`;
      this.image.setAttribute("aria-label", `Image decoded at ${here}`);
      this.say(`${here}. ${this.price || ""}`);
      this.root.dataset.z = this.z.map((v) => v.toFixed(4)).join(" ");
      this.tell("z", [...this.z]);
    });
  }

  decode(z) {
    const output = run(this.spec.decoder, this.weights, Float32Array.from(z));
    return this.spec.head === "sigmoid" ? output.map(sigmoid) : output;
  }
}

/** A sheet to draw on: what is drawn is encoded, placed, reconstructed and priced. */
class Paper {
  constructor(explorer) {
    this.explorer = explorer;
    this.scale = 10;
    const [, height, width] = explorer.spec.shape;
    this.canvas = element("canvas", { class: "paper", role: "img", width: width * this.scale,
      height: height * this.scale, style: `aspect-ratio: ${width} / ${height}` });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.report = element("p");
    this.controls = element("div", { class: "control" }, button("Clear", () => {
      this.clear();
      explorer.tell("drawing", new DataView(new ArrayBuffer(0)));
    }));
    if (explorer.spec.examples) {
      this.examples = fromBase64(explorer.spec.examples);
      this.next = 0;
      this.controls.append(button("Next example", () => this.example()));
    }
    this.clear();
    let last = null;
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width * this.canvas.width,
        (event.clientY - box.top) / box.height * this.canvas.height];
    };
    const stroke = (event) => {
      const here = at(event);
      if (!this.drawn) this.clear(); // an example is not drawn upon
      this.drawn = true;
      this.line(last || here, here);
      last = here;
      this.read("Your drawing");
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (secondary(event)) return;
      this.canvas.setPointerCapture(event.pointerId);
      last = null;
      stroke(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.canvas.hasPointerCapture(event.pointerId)) stroke(event);
    });
  }

  clear() {
    this.drawn = false;
    this.context.fillStyle = "#fff";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.canvas.setAttribute("aria-label", "Paper: draw here with mouse, pen or finger");
    this.report.textContent = "Draw a digit: it is encoded, placed on the plane, and reconstructed.";
    this.explorer.ellipse = this.explorer.price = null;
    this.explorer.drawDots();
  }

  line([x0, y0], [x1, y1]) {
    const context = this.context;
    context.strokeStyle = "#000";
    context.lineWidth = 2.4 * this.scale;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1 + 0.01, y1);
    context.stroke();
  }

  example() {
    const [, height, width] = this.explorer.spec.shape, size = height * width;
    const count = this.examples.length / size;
    const ink = this.examples.slice(this.next * size, (this.next + 1) * size);
    const { classes, y } = this.explorer.spec.points;
    const name = `Example ${this.next + 1} of ${count}, of class ${classes[y[this.next]]}`;
    this.next = (this.next + 1) % count;
    this.clear();
    this.canvas.setAttribute("aria-label", name);
    const small = element("canvas", { width, height });
    paint(small, Float32Array.from(ink, (v) => v / 255), [1, height, width]);
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.read(name);
  }

  /** The ink of each pixel, [H * W] in [0, 1]: means over squares of the canvas. */
  ink() {
    const [, height, width] = this.explorer.spec.shape, s = this.scale;
    const { data } = this.drawn ? this.centred() : this.pixels(this.context);
    const x = new Float32Array(height * width);
    for (let i = 0; i < height * s; i++) {
      for (let j = 0; j < width * s; j++) {
        x[Math.floor(i / s) * width + Math.floor(j / s)] +=
          (1 - data[4 * (i * width * s + j)] / 255) / (s * s);
      }
    }
    return x;
  }

  pixels(context) {
    return context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** The strokes as MNIST has them: the longer side 5/7 of the sheet, the centre of mass amid. */
  centred() {
    const { width, height } = this.canvas, { data } = this.pixels(this.context);
    let left = width, right = 0, top = height, bottom = 0, mass = 0, x = 0, y = 0;
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        const ink = 255 - data[4 * (i * width + j)];
        if (!ink) continue;
        left = Math.min(left, j);
        right = Math.max(right, j);
        top = Math.min(top, i);
        bottom = Math.max(bottom, i);
        mass += ink;
        x += ink * j;
        y += ink * i;
      }
    }
    const zoom = 5 / 7 * Math.min(width / Math.max(right - left, width / 4),
      height / Math.max(bottom - top, height / 4));
    const sheet = element("canvas", { width, height });
    const context = sheet.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.setTransform(zoom, 0, 0, zoom, width / 2 - zoom * x / mass, height / 2 - zoom * y / mass);
    context.drawImage(this.canvas, 0, 0);
    return this.pixels(context);
  }

  read(name) {
    const { explorer } = this, { spec, weights } = explorer, D = spec.latentDim;
    const x = this.ink();
    const q = run(spec.encoder, weights, x);
    const mean = Array.from(q.slice(0, D)), logVar = Array.from(q.slice(D));
    const rate = mean.reduce((sum, m, d) =>
      sum + 0.5 * (m * m + Math.exp(logVar[d]) - 1 - logVar[d]), 0);
    const logits = run(spec.decoder, weights, Float32Array.from(mean));
    // Ink is a chance: the expected cost of the bits is linear in it.
    const distortion = logits.reduce((sum, l, i) => sum + softplus(l) - x[i] * l, 0);
    const sigma = logVar.map((v) => Math.exp(0.5 * v)), [i, j] = spec.axes;
    explorer.ellipse = { mean, sigma };
    explorer.price = `${name}: rate ${rate.toFixed(1)} nats, distortion ${distortion.toFixed(1)} ` +
      `nats at the mean; sd (${sigma[i].toFixed(2)}, ${sigma[j].toFixed(2)}).`;
    this.report.textContent = explorer.price;
    explorer.drawDots();
    explorer.move(mean);
    explorer.root.dataset.rate = rate.toFixed(4);
    explorer.root.dataset.distortion = distortion.toFixed(4);
    explorer.tell("drawing", new DataView(Uint8Array.from(x, (v) => Math.round(255 * v)).buffer));
  }
}

// ---- the sliders ------------------------------------------------------------------------------

/** Sliders over a figure whose every position was computed beforehand: vaelib/sliders.py. */
class Sliders {
  constructor(root, spec, table, at, tell) {
    Object.assign(this, { root, spec, table, tell });
    this.id = newId();
    this.at = Array.from(at);
    this.say = begin(root, spec.title);
    this.plot = element("canvas", { class: "plot", role: "img" });
    this.where = element("p", { class: "where" }); // for paper, which shows no slider
    root.append(element("p", { class: "title" }, spec.title), this.where);
    if (spec.series.length) {
      root.append(this.plot);
      this.addLegend();
    }
    this.inputs = spec.sliders.map(({ name, values }, k) => {
      const range = { min: 0, max: values.length - 1, step: 1, value: this.at[k] };
      const [row, input] = slider(`${this.id}-${k}`, name, range, (index) => {
        this.at[k] = index;
        this.update();
      });
      const value = element("span", { class: "value", "aria-hidden": "true" });
      row.append(value);
      root.append(row);
      return { input, value };
    });
    this.addNumbers();
    if (spec.film) {
      const canvas = element("canvas", { class: "film", role: "img" });
      this.show = film(canvas, spec.film, () => `${spec.film.label}, at ${this.said()}`);
      root.append(element("p", {}, spec.film.label), canvas);
    }
    onSize(this.plot, () => this.draw());
    onTheme(() => this.draw());
    keepKeys(root);
    this.update();
  }

  addLegend() {
    const list = element("ul", { class: "legend", "aria-label": "What the figure shows" });
    for (const { label, role, kind } of this.spec.series) {
      const mark = element("span", { class: `${kind} role-${role}`, "aria-hidden": "true" });
      list.append(element("li", {}, mark, label));
    }
    this.root.append(list);
  }

  addNumbers() {
    const list = element("dl", { class: "numbers" });
    this.numbers = this.spec.numbers.map((label) => {
      const bar = element("span", { class: "bar" }), value = element("span");
      const track = element("span", { class: "track", "aria-hidden": "true" }, bar);
      list.append(element("dt", {}, label), element("dd", {}, value, track));
      return { bar, value };
    });
    this.root.append(list);
  }

  /** Where we are in the list of all positions: the last slider moves fastest. */
  get position() {
    return this.spec.sliders.reduce((p, { values }, k) => p * values.length + this.at[k], 0);
  }

  said() {
    return this.spec.sliders.map(({ name, values }, k) =>
      `${name} ${spoken(values[this.at[k]])}`).join(", ");
  }

  /** Go to a position, told from outside. */
  move(at) {
    this.at = Array.from(at);
    this.update();
  }

  update() {
    const { spec } = this, numbers = spec.table[this.position], where = this.said();
    this.inputs.forEach(({ input, value }, k) => {
      const text = spoken(spec.sliders[k].values[this.at[k]]);
      input.value = this.at[k];
      input.setAttribute("aria-valuetext", text);
      value.textContent = text;
    });
    const texts = numbers.map((n) => `${spoken(n, spec.digits)} ${spec.unit}`.trim());
    this.numbers.forEach(({ bar, value }, n) => {
      const length = Math.abs(numbers[n]) / spec.longest;
      value.textContent = texts[n];
      bar.style.width = `${100 * Math.min(1, length)}%`;
      bar.classList.toggle("cut", length > 1); // longer than its place
    });
    this.where.textContent = `At ${where}.`;
    this.plot.setAttribute("aria-label", `${spec.alt} Now ${where}.`);
    this.say(spec.numbers.map((label, n) => `${label} ${texts[n]}`).join(", "));
    this.root.dataset.at = this.at.join(" ");
    if (this.show) this.show(this.position);
    this.draw();
    this.tell("at", [...this.at]);
  }

  /** The figure at this position, as sharp as the screen. */
  draw() {
    const { clientWidth: w, clientHeight: h } = this.plot, { x: X, y: Y, series } = this.spec;
    if (!w) return; // folded away
    const context = sharpen(this.plot), style = getComputedStyle(this.root), color = named(style);
    context.font = `13px ${style.fontFamily}`;
    const heights = Y.label ? ticks(Y, h / 60) : []; // no name: heights mean nothing
    const widest = Math.max(0, ...heights.map(([, text]) => context.measureText(text).width));
    const box = { left: Y.label ? 30 + widest : 8, right: w - 18, top: 8, bottom: h - 42 };
    const x = (v) => box.left + (v - X.min) / (X.max - X.min) * (box.right - box.left);
    const y = (v) => box.bottom - (v - Y.min) / (Y.max - Y.min) * (box.bottom - box.top);

    context.fillStyle = style.color;
    context.lineWidth = 1;
    context.strokeStyle = color("grid");
    context.textAlign = "center";
    for (const [v, text] of ticks(X, w / 80)) {
      context.strokeRect(x(v), box.top, 0, box.bottom - box.top);
      context.fillText(text, x(v), box.bottom + 16);
    }
    context.fillText(X.label, (box.left + box.right) / 2, h - 8);
    context.textAlign = "right";
    for (const [v, text] of heights) {
      context.strokeRect(box.left, y(v), box.right - box.left, 0);
      context.fillText(text, box.left - 6, y(v) + 4);
    }
    context.save();
    context.translate(12, (box.top + box.bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(Y.label, 0, 0);
    context.restore();

    context.save();
    context.beginPath();
    context.rect(box.left, box.top - 4, box.right - box.left, box.bottom - box.top + 8);
    context.clip();
    for (const one of series) {
      const at = (part, i) => this.table[part.start + this.position * part.stride + i];
      context.strokeStyle = context.fillStyle = color(one.role);
      context.setLineDash(one.role === "exact" ? [6, 4] : []);
      context.lineWidth = 2.2;
      context.beginPath();
      for (let i = 0; i < one.count; i++) {
        const px = box.left + at(one.x, i) * (box.right - box.left);
        const py = box.bottom - at(one.y, i) * (box.bottom - box.top);
        if (one.kind === "line") {
          context.lineTo(px, py);
        } else { // what lies beyond the figure is drawn at its edge
          const inside = Math.min(box.right - 2, Math.max(box.left + 2, px));
          context.moveTo(inside, py);
          context.arc(inside, py, one.count === 1 ? 7 : one.count > 50 ? 2.2 : 4, 0, 7);
        }
      }
      if (one.kind === "line") context.stroke();
      else context.fill();
    }
    context.restore();
  }
}

/** About `count` round numbers between the ends, and how to write them. */
function ticks({ min, max }, count) {
  const rough = (max - min) / Math.max(4, count), ten = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * ten).find((m) => m >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let k = Math.ceil(min / step - 1e-9); k * step <= max + 1e-9 * step; k++) {
    found.push([k * step, spoken(k * step, digits)]);
  }
  return found;
}

// ---- the three homes --------------------------------------------------------------------------

// The class of a widget, and the trait that says where its reader has moved it.
const kinds = { explorer: [Explorer, "z"], sliders: [Sliders, "at"] };

/** Live Jupyter and Colab: anywidget calls this with its model. */
function render({ model, el }) {
  const { buffer, byteOffset, byteLength } = model.get("weights");
  const weights = unpack(new Uint8Array(buffer, byteOffset, byteLength));
  const spec = JSON.parse(model.get("spec")), [Widget, place] = kinds[spec.kind];
  let own = false; // changes that we made ourselves come back as events
  const widget = new Widget(el, spec, weights, model.get(place), (name, value) => {
    own = true;
    model.set(name, value);
    model.save_changes();
    own = false;
  });
  model.on(`change:${place}`, () => {
    if (!own) widget.move(model.get(place));
  });
}

/** A page: the state and the weights lie beside the element. Widgets of a page share weights. */
export function start(root) {
  const state = JSON.parse(document.querySelector(`[data-state-of="${root.id}"]`).textContent);
  const text = document.querySelector(`[data-weights="${state.weights}"]`).textContent;
  const spec = JSON.parse(state.spec), [Widget] = kinds[spec.kind];
  root.explorer = new Widget(root, spec, unpack(fromBase64(text)), state.place, () => {});
  root.explorer.run = run; // for whoever wants to check the networks
}

export default { render };
