/**
 * CodeMirror over a textarea: the form and its field stay what they are, so that
 * saving, conflicts and browsers without scripts go the same way.
 */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { HighlightStyle, LanguageDescription, bracketMatching, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { languages } from "@codemirror/language-data";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

// The colours of code everywhere in the product.
const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.modifier], class: "ck" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], class: "cs" },
  { tag: [tags.comment, tags.meta], class: "cc" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], class: "cn" },
  { tag: [tags.function(tags.variableName), tags.definition(tags.variableName), tags.className, tags.typeName, tags.tagName], class: "cf" },
]);

/** Put an editor in the place of a textarea; `changed()` is called at each change. */
export function edit(area, path, changed) {
  const language = new Compartment();
  const view = new EditorView({
    parent: area.parentElement,
    state: EditorState.create({
      doc: area.value,
      extensions: [
        lineNumbers(),
        highlightActiveLineGutter(),
        highlightActiveLine(),
        history(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        highlightSelectionMatches(),
        search({ top: true }),
        syntaxHighlighting(COLOURS),
        language.of([]),
        // Escape, then Tab, leaves the editor as it does elsewhere.
        keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": `Text of ${path}`, spellcheck: "false" }),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged) return;
          area.value = view.state.doc.toString();
          changed();
        }),
      ],
    }),
  });
  area.before(view.dom);
  area.hidden = true;
  area.removeAttribute("id");
  const known = LanguageDescription.matchFilename(languages, path.split("/").pop());
  known?.load().then((support) => view.dispatch({ effects: language.reconfigure(support) }));
  view.focus();
  return view;
}
