/** What every page does; the page's own module comes beside it. */

import { start } from "../app.js";
import { startPalette } from "../palette.js";

start();
startPalette();
