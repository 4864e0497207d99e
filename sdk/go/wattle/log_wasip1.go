package wattle

import "log/slog"

func init() { slog.SetDefault(slog.New(NewLogHandler())) }
