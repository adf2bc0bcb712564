// The forms of the documentation page: build a request from the fields, send it, show the answer as it arrives.
"use strict";

const token = document.getElementById("token");

document.addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target);
});
window.addEventListener("hashchange", openTarget);
openTarget();

function openTarget() {
  const article = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = article?.querySelector(":scope > details");
  if (details) {
    details.open = true;
    article.scrollIntoView();
  }
}

function requestOf(form) {
  const headers = new Headers();
  const query = new URLSearchParams();
  let path = form.dataset.path;
  for (const field of form.querySelectorAll("input[data-in]")) {
    if (field.dataset.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(field.value));
    else if (field.value === "") continue;
    else if (field.dataset.in === "query") query.append(field.name, field.value);
    else headers.set(field.name, field.value);
  }
  if (token.value) headers.set("Authorization", `Bearer ${token.value.trim()}`);
  const body = bodyOf(form, headers);
  const search = query.toString();
  return [search ? `${path}?${search}` : path, { method: form.dataset.verb, headers, body }];
}

function bodyOf(form, headers) {
  const field = form.querySelector("[name=body]");
  if (!field) return undefined;
  headers.set("Content-Type", field.closest("label").dataset.type);
  return field.type === "file" ? field.files[0] : field.value;
}

async function send(form) {
  const result = form.querySelector(".result");
  const status = result.querySelector(".status");
  const text = result.querySelector("pre");
  const stop = form.querySelector(".stop");
  const abort = new AbortController();
  stop.onclick = () => abort.abort();
  stop.hidden = result.hidden = false;
  status.className = "status";
  status.textContent = "…";
  text.textContent = "";
  try {
    const [path, options] = requestOf(form);
    const answer = await fetch(path, { ...options, signal: abort.signal });
    status.textContent = `${answer.status} ${answer.statusText}`;
    status.classList.toggle("bad", !answer.ok);
    await show(answer, text);
  } catch (error) {
    if (error.name !== "AbortError") {
      status.textContent = error.message;
      status.classList.add("bad");
    }
  } finally {
    stop.hidden = true;
  }
}

async function show(answer, text) {
  if (answer.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) text.textContent += part.value;
    return;
  }
  const document = JSON.parse(await answer.text());
  text.textContent = JSON.stringify(document, null, 2);
  if (document.accessToken) token.value = document.accessToken;
}
