/** The words of the card in the frontend's language, out of locales/<language>/main.json. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const OURS = "surAdapter";
let catalogs;

export function locale() {
  return app.extensionManager?.setting?.get("Comfy.Locale") || "en";
}

/**
 * A function (key, values) -> text, with the `language` its texts are in. English stands in for a word without
 * translation.
 */
export async function words() {
  catalogs ??= fetchCatalogs();
  const all = await catalogs;
  const chosen = all[locale()]?.[OURS] ?? {};
  const english = all.en?.[OURS] ?? {};
  const say = (key, values = {}) =>
    (chosen[key] ?? english[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
  return Object.assign(say, { language: all[locale()]?.[OURS] ? locale() : "en" });
}

async function fetchCatalogs() {
  try {
    const answer = await api.fetchApi("/i18n");
    return answer.ok ? await answer.json() : {};
  } catch {
    return {}; // the keys are English too
  }
}
