// The library for plugins of the Wattle event bus. It has no dependencies.
module wattle

go 1.27
