/** What every page does; the page's own module comes beside it. */

import { start } from "../app.js";
import { startList } from "../list.js";
import { startPalette } from "../palette.js";

start();
startPalette();
const list = document.querySelector("[data-list]");
if (list) startList(list);
