// Tools and JSON: what the answer may be, as fields of a request.

const CALCULATOR = [
  {
    type: "function",
    function: {
      name: "calculate",
      description: "The value of an expression of whole numbers.",
      parameters: {
        type: "object",
        properties: { expression: { type: "string" } },
        required: ["expression"],
        additionalProperties: false,
      },
    },
  },
];
const SCHEMA = {
  type: "object",
  properties: { answer: { type: "integer" } },
  required: ["answer"],
  additionalProperties: false,
};
const FIRST = { tools: CALCULATOR, json: SCHEMA };

// The text is not JSON of the expected kind; the message says why.
export class Unreadable extends Error {}

export class Form {
  // Hides the panel `root` if the model can do neither.
  constructor(root, { tools, formats }, changed) {
    this.text = root.querySelector("textarea");
    this.label = root.querySelector(".label");
    this.written = {};
    for (const kind of Object.keys(FIRST)) this.written[kind] = pretty(FIRST[kind]);
    root.hidden = !tools && !formats;
    root.querySelector(".tools").hidden = !tools;
    root.querySelector(".json").hidden = !formats;
    root.addEventListener("change", () => {
      this.choose(root.querySelector(":checked").value);
      changed();
    });
    this.text.addEventListener("input", () => {
      this.written[this.kind] = this.text.value;
      changed();
    });
    this.choose("text");
  }

  choose(kind) {
    this.kind = kind;
    this.label.hidden = kind === "text";
    this.label.firstChild.textContent = kind === "json" ? "JSON schema" : "Tools, as a JSON list";
    if (kind !== "text") this.text.value = this.written[kind];
  }

  // Throws Unreadable.
  get fields() {
    if (this.kind === "text") return {};
    let given;
    try {
      given = JSON.parse(this.text.value);
    } catch (error) {
      const what = this.kind === "json" ? "The schema" : "The list of tools";
      throw new Unreadable(`${what} is no JSON: ${error.message}`);
    }
    if (this.kind === "tools") return { tools: Array.isArray(given) ? given : [given] };
    const named = { name: "answer", schema: given, strict: true };
    return { response_format: { type: "json_schema", json_schema: named } };
  }
}

function pretty(value) {
  return JSON.stringify(value, null, 2);
}
