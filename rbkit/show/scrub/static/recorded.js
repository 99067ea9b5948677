// One run as Python sent it, decoded: arrays by round, and Gram matrices when they are looked at.
const KEPT = 48;  // matrices that stay unfolded

/** Value of each half-precision number: browsers have no Float16Array for certain. */
const HALF = (() => {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    table[bits] = exponent === 31 ? (fraction ? NaN : sign * Infinity)
      : sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  return table;
})();

class Recorded {
  constructor(run, index) {
    const floats = (name) => typed(run[name], Float32Array);
    this.index = index;
    this.label = String(run.label);
    this.status = String(run.status);
    this.ids = run.ids || [];
    this.m = this.ids.length;
    this.total = run.total;
    this.others = this.total - this.m;
    this.worst = run.worst;
    this.hasGram = Boolean(run.gram);
    this.places = run.places || [];
    this.edges = floats("edges");
    this.rounds = this.edges.length - 1;
    this.p = floats("p");
    this.q = floats("q");
    this.score = floats("score");
    this.noise = floats("noise");
    this.effective = floats("effective");
    const train = floats("train"), n = train.length / 3, evaluation = floats("evaluation"), e = evaluation.length / 2;
    this.train = [train.subarray(0, n), train.subarray(n, 2 * n), train.subarray(2 * n)];
    this.evaluation = { steps: evaluation.subarray(0, e), values: evaluation.subarray(e), byDomain: floats("by_domain") };
    this.place = new Map(this.ids.map((id, i) => [id, i]));
    this.grams = new Map();
    this.wanted = new Set();
    const triangle = (this.m * (this.m + 1)) / 2, cosines = typed(run.grams, Uint16Array), diagonals = floats("diagonals");
    this.raw = new Map((run.sent || []).map((round, i) => [round, { cosines: cosines.subarray(i * triangle, (i + 1) * triangle), diagonal: diagonals.subarray(i * this.m, (i + 1) * this.m) }]));
  }

  placeOf(domain) {
    return this.place.has(domain) ? this.place.get(domain) : -1;
  }

  /** The round that a step belongs to; the last one beyond the end. */
  roundAt(step) {
    for (let t = 0; t < this.rounds; t++) if (this.edges[t + 1] >= step) return t;
    return Math.max(0, this.rounds - 1);
  }

  ended(step) {
    return step > this.edges[this.rounds];
  }

  take(round, buffers) {
    this.raw.set(round, { cosines: typed(buffers[0], Uint16Array), diagonal: typed(buffers[1], Float32Array) });
  }

  /** The Gram matrix of a round, or of the nearest earlier one that is here: {round, cosine, norm}. */
  gram(round) {
    let have = round;
    while (have > 0 && !this.raw.has(have)) have--;
    if (!this.raw.has(have)) return null;
    if (!this.grams.has(have)) {
      if (this.grams.size >= KEPT) this.grams.delete(this.grams.keys().next().value);
      const { m } = this, { cosines, diagonal } = this.raw.get(have), cosine = new Float32Array(m * m);
      for (let i = 0, k = 0; i < m; i++) for (let j = i; j < m; j++, k++) cosine[i * m + j] = cosine[j * m + i] = HALF[cosines[k]];
      this.grams.set(have, { round: have, cosine, diagonal, norm: diagonal.map((d) => (d > 0 ? Math.sqrt(d) : 1)) });
    }
    return this.grams.get(have);
  }

  /** One pair in a round whose matrix is here, without unfolding it. */
  pair(round, i, j, kind) {
    const { cosines, diagonal } = this.raw.get(round), [a, b] = i < j ? [i, j] : [j, i];
    const value = HALF[cosines[a * this.m - (a * (a - 1)) / 2 + b - a]], norm = (k) => (diagonal[k] > 0 ? Math.sqrt(diagonal[k]) : 1);
    if (!Number.isFinite(value)) return NaN;
    if (kind === "raw") return value * norm(a) * norm(b);
    return diagonal[a] > 0 && diagonal[b] > 0 ? clamp(value, -1, 1) : NaN;
  }

  /** One cell of a matrix from `gram`: NaN where the round did not see the pair. */
  cell(gram, i, j, kind) {
    const value = gram.cosine[i * this.m + j];
    if (!Number.isFinite(value)) return NaN;
    if (kind === "raw") return value * gram.norm[i] * gram.norm[j];
    return gram.diagonal[i] > 0 && gram.diagonal[j] > 0 ? clamp(value, -1, 1) : NaN;
  }

  share(round, place) {
    return this.p[round * this.m + place];
  }

  /** Share of the domains that are not shown one by one. */
  rest(round, p = this.p) {
    let sum = 0;
    for (let i = 0; i < this.m; i++) sum += p[round * this.m + i];
    return this.others ? Math.max(0, 1 - sum) : 0;
  }

  /** Index of the last evaluation up to a step, or -1. */
  evaluationAt(step) {
    const { steps } = this.evaluation;
    let found = -1;
    for (let i = 0; i < steps.length && steps[i] <= step; i++) found = i;
    return found;
  }

  lossOf(place, evaluation) {
    return place >= 0 && evaluation >= 0 ? this.evaluation.byDomain[evaluation * this.m + place] : NaN;
  }
}

/** Whether the last evaluations of two runs up to a step were at the same step: else losses do not compare. */
function evaluatedTogether(a, b, step) {
  const [e, f] = [a.evaluationAt(step), b.evaluationAt(step)];
  return e >= 0 && f >= 0 && a.evaluation.steps[e] === b.evaluation.steps[f];
}

function decodeReplay(value) {
  return { label: String(value.label), mixer: String(value.mixer), p: typed(value.p, Float32Array),
    distance: typed(value.distance, Float32Array), effective: typed(value.effective, Float32Array) };
}

/** A number for people: a true minus sign, as many digits as it deserves. */
function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size > 0 && (size < 0.5 * 10 ** -digits || size >= 1e5) ? value.toExponential(1) : value.toFixed(digits);
  return text.replace("-", "−").replace("e+", "e").replace("e-", "e−");
}

const signed = (value, digits = 3) => (value > 0 ? "+" : "") + figure(value, digits);
const share = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : "–");
const points = (value) => (Number.isFinite(value) ? `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`.replace("-", "−") : "–");
