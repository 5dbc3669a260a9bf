// Under a preset its numbers count, so the settings beside it show them, and only under custom are
// they there to be changed. Without this file, or where a host has other widgets, all inputs stay
// as they are.
import { app } from "../../../scripts/app.js"

const PRESETS = "dpt_presets"  // beside the options of the input preset, from correction_inputs.py
const CUSTOM = "custom"

const input = (definition, name) =>
    definition.input?.required?.[name] ?? definition.input?.optional?.[name]

const wired = (node, name) =>
    node.inputs?.some((slot) => slot.widget?.name === name && slot.link != null)

function show(node, widget, visible) {
    widget.hidden = !visible  // the classic canvas reads this,
    widget.options ??= {}
    widget.options.hidden = !visible  // Nodes 2.0 that
}

function follow(node, presets) {
    const preset = node.widgets?.find((widget) => widget.name === "preset")
    if (!preset) return
    const names = Object.keys(Object.values(presets)[0])
    const settings = node.widgets.filter((widget) => names.includes(widget.name))

    const update = () => {
        for (const widget of settings)
            show(node, widget, preset.value === CUSTOM || wired(node, widget.name))
        node.setDirtyCanvas?.(true, true)
    }
    const fit = () => node.setSize?.([node.size[0], node.computeSize()[1]])

    const changed = preset.callback
    preset.callback = function (value, ...others) {
        const result = changed?.call(this, value, ...others)
        for (const widget of settings)
            if (presets[preset.value]) widget.value = presets[preset.value][widget.name]
        update()
        fit()
        return result
    }
    for (const event of ["onConfigure", "onConnectionsChange"]) {
        const before = node[event]
        node[event] = function (...all) {
            const result = before?.apply(this, all)
            update()
            return result
        }
    }
    update()
    fit()
}

app.registerExtension({
    name: "dpt-t2i.presets",
    nodeCreated(node) {
        const definition = node.constructor.nodeData
        const presets = definition && input(definition, "preset")?.[1]?.[PRESETS]
        if (presets) follow(node, presets)
    },
})
