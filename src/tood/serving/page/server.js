// What the page asks of the server. A key, if one is wanted, lasts as long as the tab.

export class Trouble extends Error {
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function useKey(key) {
  sessionStorage.setItem("key", key);
}

async function ask(address, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch {
    throw new Trouble("The server does not answer.");
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Trouble(
    told.error ?? `The server answered ${answer.status}.`,
    answer.status,
    Number(answer.headers.get("retry-after") ?? 0),
  );
}

export async function models() {
  return (await ask("models")).models;
}

// All that the model sees in a picture, down to its lowest score: thresholds are the page's.
// Browsers show photographs as their EXIF orientation says, so boxes are asked for in that view.
export async function detect(blob, model) {
  const address = `detect?exif=true&model=${encodeURIComponent(model)}`;
  const body = { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: blob };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return (await ask(address, body)).results[0];
    } catch (trouble) {
      if (trouble.status !== 429 || attempt === 5) throw trouble;
      await new Promise((done) => setTimeout(done, 1000 * Math.max(1, trouble.retryAfter)));
    }
  }
}
