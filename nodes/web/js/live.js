// The host shows the text of a running node on that node. A subgraph has no place for it, so what
// goes on inside stands beside its name, as a badge: "step 7 of 20: score 0.60 ↑ ▁▂▄▅".
import { app } from "../../../scripts/app.js"
import { api } from "../../../scripts/api.js"

const PAPER = "#202024", INK = "#3ddc84"

function badgeOf(node) {
    if (node.dptBadge) return node.dptBadge
    const other = node.badges?.map((badge) => (typeof badge === "function" ? badge() : badge))[0]
    if (!other) return null
    const badge = new other.constructor({ text: "", fgColor: INK, bgColor: PAPER })
    node.badges.push(() => badge)
    return (node.dptBadge = badge)
}

function tell({ detail }) {
    const node = app.graph?.getNodeById?.(detail?.node)
    const badge = node?.subgraph && badgeOf(node)
    if (!badge) return
    badge.text = detail.text
    node.setDirtyCanvas(true, true)
}

app.registerExtension({
    name: "dpt-t2i.live",
    setup() {
        api.addEventListener("dpt_live", tell)
    },
})
