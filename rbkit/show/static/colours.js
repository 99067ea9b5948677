// Colour scales, and colours as numbers.
const hexes = (text) => text.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

// Viridis up to where it gets too pale for paper: even in lightness, safe for colour-blind eyes.
const RAMP = hexes("440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b dde318");
// Red above 0, blue below, near white at it: ColorBrewer's RdBu, as in the static figures.
const DIVERGING = hexes("053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f");

/** The colour of a scale at t in [0, 1], as [r, g, b]. */
function rampColour(t, ramp = RAMP) {
  const x = clamp(t, 0, 1) * (ramp.length - 1), i = Math.min(Math.floor(x), ramp.length - 2);
  return ramp[i].map((low, c) => Math.round(low + (x - i) * (ramp[i + 1][c] - low)));
}

const rampGradient = (ramp) => `linear-gradient(90deg,${ramp.map((rgb) => `rgb(${rgb})`).join(",")})`;
const pack = ([r, g, b]) => r | (g << 8) | (b << 16);
const parse = (hex) => [1, 3, 5].map((i) => parseInt(safeColour(hex).slice(i, i + 2), 16));
