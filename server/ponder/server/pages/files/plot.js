// Draws points with intervals and a line through them, as SVG that fits its width.

const HEIGHT = 300;
const EDGE = { left: 64, right: 20, top: 28, bottom: 48 };
const LETTER = 6.4; // mean width of a letter in a label

// `points` are {x, y, low, high, label, about}; `axes` has the names of x and y, the largest y or
// null, and a function that writes a y.
export function plot(svg, points, axes) {
  const width = Math.max(240, svg.clientWidth);
  const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
  const right = nice(Math.max(1, ...points.map((point) => point.x)) * (points.length ? 1 : 100));
  const top = axes.most ?? nice(Math.max(4, ...points.map((point) => point.high)));
  const across = (x) => EDGE.left + (x / right) * inner.width;
  const up = (y) => EDGE.top + (1 - y / top) * inner.height;
  const marks = points.map((point) => ({ ...point, at: [across(point.x), up(point.y)] }));
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(
    ...steps(top, 4).flatMap((y) => [
      draw("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: up(y), y2: up(y) }),
      write(EDGE.left - 8, up(y) + 4, axes.written(y), "end"),
    ]),
    ...steps(right, width < 480 ? 2 : 4).map((x) =>
      write(across(x), HEIGHT - EDGE.bottom + 18, Number(x.toPrecision(3)), "middle"),
    ),
    write(EDGE.left + inner.width / 2, HEIGHT - 8, axes.x, "middle", "axis"),
    turned(write(0, 0, axes.y, "middle", "axis"), 14, EDGE.top + inner.height / 2),
    ...marks.map(({ at: [x], low, high }) =>
      draw("line", { class: "interval", x1: x, x2: x, y1: up(low), y2: up(high) }),
    ),
    line(points.toSorted((one, other) => one.x - other.x), across, up),
    ...marks.map(dot),
    ...(points.length ? [] : [write(across(right / 2), up(top / 2) - 6, "No answers yet", "middle")]),
    ...labels(marks, width),
  );
}

function line(points, across, up) {
  const places = points.map(({ x, y }) => `${across(x).toFixed(1)},${up(y).toFixed(1)}`);
  return draw("polyline", { class: "curve", points: places.join(" ") });
}

function dot({ at: [cx, cy], about }) {
  const made = draw("circle", { class: "point", cx, cy, r: 5 });
  const title = draw("title", {});
  title.textContent = about;
  made.append(title);
  return made;
}

// Labels beside the points: each to the right, left, below or above, wherever it overlaps no
// earlier one. A point without room has no label; the table names it.
function labels(marks, width) {
  const taken = marks.map(({ at: [x, y] }) => [x - 6, y - 6, x + 6, y + 6]);
  const free = (box) =>
    box[0] > EDGE.left && box[2] < width && box[3] < HEIGHT - EDGE.bottom &&
    taken.every((one) => box[0] > one[2] || box[2] < one[0] || box[1] > one[3] || box[3] < one[1]);
  return marks.flatMap(({ at: [x, y], label }) => {
    const long = label.length * LETTER;
    const places = [
      [x + 10, y + 16], [x - 10 - long, y - 8], [x - long / 2, y + 22], [x - long / 2, y - 12],
      [x + 10, y - 8], [x - 10 - long, y + 16],
    ];
    const place = places.find(([left, base]) => free([left, base - 11, left + long, base + 3]));
    if (!place) return [];
    taken.push([place[0], place[1] - 11, place[0] + long, place[1] + 3]);
    return [write(place[0], place[1], label, "start", "label")];
  });
}

// The end of an axis, such that its quarters are round numbers.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].find((end) => end * power >= value);
}

function steps(most, count) {
  return Array.from({ length: count + 1 }, (_, step) => (most * step) / count);
}

function draw(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function write(x, y, words, anchor, kind = "scale") {
  const made = draw("text", { x, y, "text-anchor": anchor, class: kind });
  made.textContent = words;
  return made;
}

function turned(made, x, y) {
  made.setAttribute("transform", `translate(${x} ${y}) rotate(-90)`);
  return made;
}
