// The host shows the text of a running node on that node. A subgraph has no place for it, so what
// goes on inside stands above it, as its badge. (Nodes 2.0 draws no badges on subgraphs.)
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
    const node = app.graph?.getNodeById?.(detail?.nodeId)
    const badge = node?.subgraph && badgeOf(node)
    if (!badge) return
    badge.text = detail.text.split("\n")[0]
    node.setDirtyCanvas(true, true)
}

app.registerExtension({
    name: "dpt-t2i.live",
    setup() {
        api.addEventListener("progress_text", tell)
    },
})
