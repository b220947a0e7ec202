// Where labels and lines go, so that none hides another. Lengths are pixels of the screen; nothing here touches the page.

const GAP = 5; // between two lines that would be on the same place

const overlap = ([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) => Math.max(0, Math.min(ax2, bx2) - Math.max(ax1, bx1)) * Math.max(0, Math.min(ay2, by2) - Math.max(ay1, by1));
const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);

// How much a label at a place hides: a line that it crosses counts 2, a small box behind it as much as is hidden.
function hidden(place, boxes) {
  let cost = 0;
  for (const box of boxes) {
    const shared = overlap(place, box);
    if (!shared) continue;
    if (shared < 0.98 * area(place)) cost += 2;
    cost += 4 * shared / area(box);
  }
  return cost;
}

// The places for a label of a size: above its box, inside, below, then all lines of the picture by their distance.
function places([x1, y1, x2, y2], [width, height], [right, bottom]) {
  const lines = Array.from({ length: Math.floor(bottom / height) }, (_, i) => i * height);
  const tops = [y1 - height, y1 + 2, y2, y2 - height - 2, ...lines], lefts = [x1, x2 - width];
  return tops.flatMap((top, line) => lefts.map((left, side) => {
    const x = Math.max(0, Math.min(left, right - width)), y = Math.max(0, Math.min(top, bottom - height));
    const away = Math.abs(y - (y1 - height)) / bottom;
    return { place: [x, y, x + width, y + height], cost: 0.02 * side + (line < 4 ? 0.1 * line : 0.5 + away) };
  }));
}

// Places labels one after the other.
//   labels: {box, size: [width, height]}, the most important one first; frame: [width, height]; boxes: all boxes.
// Returns the place of each, [x1, y1, x2, y2], or null where every place would cover another label.
export function placeLabels(labels, frame, boxes) {
  const taken = [];
  return labels.map(({ box, size }) => {
    const free = places(box, size, frame).filter(({ place }) => !taken.some((other) => overlap(place, other)));
    const best = free.map(({ place, cost }) => ({ place, cost: cost + hidden(place, boxes) })).sort((a, b) => a.cost - b.cost)[0];
    if (best) taken.push(best.place);
    return best?.place ?? null;
  });
}

// Moves the sides of boxes inwards that would be on the same line as a side of an earlier box, or outside of the frame.
export function apart(boxes, [width, height]) {
  const shown = [];
  for (const box of boxes) {
    const moved = [Math.max(2, box[0]), Math.max(2, box[1]), Math.min(width - 2, box[2]), Math.min(height - 2, box[3])];
    for (const side of [0, 1, 2, 3]) {
      const inwards = side < 2 ? GAP : -GAP, room = Math.abs(moved[(side + 2) % 4] - moved[side]) / 4;
      let steps = Math.floor(room / GAP);
      while (steps-- > 0 && shown.some((other) => overlap(other, moved) && Math.abs(other[side] - moved[side]) < GAP - 1)) moved[side] += inwards;
    }
    shown.push(moved);
  }
  return shown;
}
