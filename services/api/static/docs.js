// Shows the OpenAPI document. Everything is put into the page as text, never as markup.

const message = document.getElementById("message");
const main = document.getElementById("document");

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function table(headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.type ?? "any";
}

const LIMITS = {
  minimum: "at least", exclusiveMinimum: "above", maximum: "at most", exclusiveMaximum: "below",
  minLength: "characters, at least", maxLength: "characters, at most", maxItems: "items, at most", pattern: "pattern",
};

function notesOn(schema = {}) {
  const parts = [schema, ...(schema.anyOf ?? [])];
  const notes = parts.map((part) => part.description).filter(Boolean);
  for (const [key, words] of Object.entries(LIMITS)) {
    const part = parts.find((candidate) => candidate[key] !== undefined);
    if (part) notes.push(`${words} ${part[key]}`);
  }
  if (schema.default !== undefined) notes.push(`default ${JSON.stringify(schema.default)}`);
  return notes.join("; ");
}

function section(title, content) {
  return [element("h4", {}, title), content];
}

function operation(path, method, facts) {
  const parts = [];
  if (facts.parameters?.length) {
    const rows = facts.parameters.map((parameter) => [
      element("code", {}, parameter.name), parameter.in, typeOf(parameter.schema),
      parameter.description ?? notesOn(parameter.schema),
    ]);
    parts.push(...section("Parameters", table(["name", "in", "type", "notes"], rows)));
  }
  const body = facts.requestBody?.content["application/json"];
  if (body) {
    parts.push(...section("Body", element("p", {}, element("code", {}, typeOf(body.schema)))));
    for (const [name, example] of Object.entries(body.examples ?? {})) {
      parts.push(element("p", {}, name), element("pre", {}, JSON.stringify(example.value, null, 2)));
    }
  }
  const answers = Object.entries(facts.responses).map(([status, answer]) => [
    status, answer.description,
    Object.entries(answer.content ?? {}).map(([type, { schema }]) =>
      `${type}: ${schema.description ?? typeOf(schema.properties?.data ?? schema)}`).join("\n"),
  ]);
  parts.push(...section("Answers", table(["status", "meaning", "content"], answers)));
  const title = element("summary", {}, element("span", { className: "method" }, method.toUpperCase()),
    element("code", {}, path), ` ${facts.summary}`);
  return element("details", {}, title, ...parts);
}

function schema(name, facts) {
  const rows = Object.entries(facts.properties ?? {}).map(([field, type]) => [
    element("code", {}, field), typeOf(type), notesOn(type),
  ]);
  return element("details", {}, element("summary", {}, element("code", {}, name)),
    element("p", {}, facts.description ?? ""), table(["field", "type", "notes"], rows));
}

function show(openapi) {
  const operations = Object.entries(openapi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, facts]) => operation(path, method, facts)));
  const schemas = Object.entries(openapi.components.schemas).map(([name, facts]) => schema(name, facts));
  main.replaceChildren(
    element("p", {}, `${openapi.info.description} Version ${openapi.info.version}.`),
    element("h2", {}, "Operations"), ...operations, element("h2", {}, "Schemas"), ...schemas);
}

document.getElementById("open").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = document.getElementById("key").value.trim();
  try {
    const answer = await fetch("/api/v1/openapi.json", { headers: { "X-API-Key": key }, credentials: "omit" });
    const openapi = await answer.json();
    if (!answer.ok) throw new Error(openapi.error.message);
    show(openapi);
    message.textContent = "";
  } catch (error) {
    message.textContent = error.message;
  }
});
