// The networks of a widget. A network is a list of steps, each an object with an `op` and the
// offsets of its weights in one Float32Array; vaelib/explore.py writes it. Values are flat arrays,
// in PyTorch's layout.

/** float16, little-endian bytes -> Float32Array. */
function unpack(bytes) {
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
function run(steps, weights, x) {
  for (const step of steps) {
    x = step.op in activations ? x.map(activations[step.op]) : layers[step.op](step, weights, x);
  }
  return x;
}
