// Sums to ask a model, which the page can check itself.

const MOST = 50;

// A sum of two to five terms whose value and partial values are not negative: {question, value}.
export function sum(random = Math.random) {
  const draw = (least, most) => least + Math.floor(random() * (most - least + 1));
  let value = draw(1, MOST);
  let text = String(value);
  for (let terms = draw(1, 4); terms > 0; terms--) {
    const minus = value > 0 && random() < 0.5;
    const term = draw(1, minus ? Math.min(MOST, value) : MOST);
    value += minus ? -term : term;
    text += `${minus ? " - " : " + "}${term}`;
  }
  return { question: `What is ${text}?`, value };
}

// Whether an answer's last number is the value.
export function right({ value }, answer) {
  const numbers = answer.replaceAll(",", "").match(/-?\d+(\.\d+)?/g) ?? [];
  return Number(numbers.at(-1)) === value;
}
