// Scales of colour that the colour-blind can tell apart, as functions of a value to [red, green, blue, alpha], 0 to 255.

// Viridis (van der Walt and Smith), at nine equal steps.
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37]];
const ORANGE = [[255, 214, 140], [250, 150, 30], [196, 74, 0]];
const BLUE = [[150, 205, 255], [40, 130, 220], [0, 62, 148]];

function between(colours, part) {
  const at = Math.min(1, Math.max(0, part)) * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  return colours[low].map((value, i) => value + (colours[low + 1][i] - value) * (at - low));
}

// For values of both signs: blue below 0, orange above, and 0 leaves the photograph as it is. For others: viridis from 0 up.
export function colouring(low, high) {
  if (low >= 0) return { low: 0, high: high || 1, of: (value) => [...between(VIRIDIS, value / (high || 1)), 255] };
  const limit = Math.max(-low, high);
  return {
    low: -limit,
    high: limit,
    of: (value) => {
      const part = Math.min(1, Math.abs(value) / limit);
      return [...between(value < 0 ? BLUE : ORANGE, part), 255 * part ** 0.75];
    },
  };
}
