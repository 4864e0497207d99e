module example.com/{{name}}

go 1.27

require wattle v0.0.0

// The library is in this folder: nothing is fetched.
replace wattle => ./wattle
