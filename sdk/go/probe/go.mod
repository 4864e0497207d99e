module probe

go 1.27

require wattle v0.0.0

replace wattle => ../wattle
