// openapi.json as a page, without anyone else's scripts.

function element(kind, text, ...children) {
  const made = document.createElement(kind);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function code(content, label) {
  const made = element("pre", JSON.stringify(content, null, 2));
  made.tabIndex = 0;
  made.setAttribute("aria-label", label);
  return made;
}

// A schema with what it refers to in its place.
function whole(schema, all) {
  if (Array.isArray(schema)) return schema.map((part) => whole(part, all));
  if (!schema || typeof schema !== "object") return schema;
  if (schema.$ref) return whole(all[schema.$ref.split("/").pop()], all);
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([name, value]) => name !== "title" || typeof value === "object")
      .map(([name, value]) => [name, whole(value, all)]),
  );
}

function operation(method, path, told, all) {
  const made = element("section", "", element("h2", `${method.toUpperCase()} ${path}`), element("p", told.summary));
  made.className = "operation";
  if (told.description) made.append(element("p", told.description));
  if (told.parameters?.length) {
    const list = element("ul");
    for (const one of told.parameters) {
      list.append(element("li", "", element("code", one.name), ` (${one.in}) ${one.description ?? ""}`));
    }
    made.append(element("h3", "Parameters"), list);
  }
  for (const [kind, body] of Object.entries(told.requestBody?.content ?? {})) {
    made.append(element("h3", `Body: ${kind}`), code(whole(body.schema, all), `Body as ${kind}`));
  }
  for (const [status, answer] of Object.entries(told.responses ?? {})) {
    made.append(element("h3", `${status}: ${answer.description}`));
    const schema = answer.content?.["application/json"]?.schema;
    if (schema && Number(status) < 400) made.append(code(whole(schema, all), `Answer ${status}`));
  }
  return made;
}

const api = await (await fetch("openapi.json")).json();
const sections = Object.entries(api.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, told]) => operation(method, path, told, api.components?.schemas ?? {})),
);
document.getElementById("operations").replaceChildren(...sections);
