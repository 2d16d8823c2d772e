"""N nodes' cores on a simulated network, clock, disk and executor, from one seed (DESIGN section 13).

`plan` makes the script of a run, `world` plays it, `checks` watches; `runner` runs, shrinks and tells the story.
"""
