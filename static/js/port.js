/** Previews are opened by a POST, so that a link alone opens nothing. */

import { token } from "./token.js";

/** Post to the address that opens a port's preview, in a new tab. */
export function openPort(template, port) {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", target: "_blank", action: template.replace("PORT", port) });
  form.rel = "noopener";
  const field = Object.assign(document.createElement("input"), {
    type: "hidden",
    name: "csrfmiddlewaretoken",
    value: token(),
  });
  form.append(field);
  document.body.append(form);
  form.submit();
  form.remove();
}
