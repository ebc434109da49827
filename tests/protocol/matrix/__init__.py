"""The compatibility matrix: cases written once, played by every SDK in every mode.

`script` is the language functions are written in, `catalogue` the functions and cases, `columns` the SDKs, `play` what a
case is given, `stage` what runs while cases are played. The apps (`tests/protocol/apps/scripted_*` and
`apps/node/scripted.mjs`) execute the scripts with nothing but their SDK's own tools.
"""
