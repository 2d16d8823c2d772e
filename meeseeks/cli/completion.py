"""`mks completion SHELL`: the scripts that let a shell ask `mks` what may come next."""

from __future__ import annotations

import os
import re
import sys

import click

from .exits import OK
from .invocation import debug_option

__all__ = ["answer", "completion_command"]

# A script calls `mks` with _MKS_COMPLETE=SHELL, and with the words to the cursor as arguments (bash: the line).
# Each line of the answer is a kind, a value and perhaps a help, with tabs between. The kinds: `plain` a word; `part` a
# word that goes on, so no space follows; `file`, `dir`, `command`: what the shell itself knows best.

_BASH = r"""# bash completion of mks. In ~/.bashrc:  eval "$(mks completion bash)"
_mks_completion() {
    local kind value
    COMPREPLY=()
    while IFS=$'\t' read -r kind value _; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            part) compopt -o nospace; COMPREPLY+=("$value") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            command) mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}") ;;
        esac
    done < <(_MKS_COMPLETE=bash _MKS_BREAKS="$COMP_WORDBREAKS" "$1" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o nosort -F _mks_completion mks
"""

_ZSH = r"""#compdef mks
# zsh completion of mks. In ~/.zshrc, after compinit:  eval "$(mks completion zsh)"
_mks() {
    local kind value help
    local -a described
    while IFS=$'\t' read -r kind value help; do
        case $kind in
            plain) described+=("${value//:/\\:}${help:+:$help}") ;;
            part) compadd -S '' -- "$value" ;;
            file) _files ;;
            dir) _files -/ ;;
            command) _command_names -e ;;
        esac
    done < <(_MKS_COMPLETE=zsh "${words[1]}" "${(@Q)words[2,CURRENT]}" 2>/dev/null)
    (( $#described )) && _describe -V mks described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _mks "$@"
else
    compdef _mks mks
fi
"""

_FISH = r"""# fish completion of mks:  mks completion fish > ~/.config/fish/completions/mks.fish
function __mks_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -q current[1]; or set current ''
    for line in (env _MKS_COMPLETE=fish $before[1] $before[2..] $current 2>/dev/null)
        set -l parts (string split -m 2 \t -- $line)
        switch $parts[1]
            case plain part
                echo -- (string join \t -- $parts[2..])
            case file
                __fish_complete_path $current
            case command
                complete -C "$current"
            case dir
                __fish_complete_directories $current
        end
    end
end
complete --command mks --no-files --keep-order --arguments '(__mks_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(list(_SCRIPTS)))
@debug_option
def completion_command(shell: str) -> int:
    """Print the script that lets SHELL (bash, zsh or fish) complete what you type after mks.

    \b
      eval "$(mks completion bash)"                               in ~/.bashrc
      eval "$(mks completion zsh)"                                in ~/.zshrc, after compinit
      mks completion fish > ~/.config/fish/completions/mks.fish

    It completes commands and options, and asks the node for job ids, pools, nodes and tags. Where no node answers
    within 0.15 s it is silent; over a slow line, give it more in MEESEEKS_COMPLETE_WITHIN.
    """  # noqa: D301 - click looks for the character itself
    click.echo(_SCRIPTS[shell], nl=False)
    return OK


def answer(shell: str, arguments: list[str]) -> int:
    """Print what may come next, for the script of a shell."""
    from .candidates import candidates

    if shell == "bash":
        *words, current = _split(arguments[0] if arguments else "")
        breaks = os.environ.get("_MKS_BREAKS", "")
        # bash itself has split the word at these, and replaces the last part only, to which an @ belongs.
        cut = max([0, *(current.rfind(char) + (char != "@") for char in "=:@" if char in current and char in breaks)])
    else:
        *words, current = arguments or [""]
        cut = 0
    for found in candidates(words, current):
        value = found.value[cut:]
        if shell == "bash" and re.search(r"[^\w@%+=:,./*-]", value):
            value = "".join(char if re.match(r"[\w@%+=:,./*-]", char) else f"\\{char}" for char in value)
        sys.stdout.write("\t".join(filter(None, (found.kind, value, found.help))) + "\n")
    return OK


def _split(line: str) -> list[str]:
    """The words after `mks` of a line that ends at the cursor, as the shell would see them; the last may be empty."""
    import shlex

    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
        is_open = False
    except ValueError:  # within quotes
        words.append(lexer.token)
        is_open = True
    if not is_open and (not words or line[-1:].isspace()):
        words.append("")
    # `A=b mks …; mks ls` and the like: what counts is the command at the cursor.
    begins = max((at for at, word in enumerate(words) if word.rpartition("/")[2] == "mks"), default=0)
    return words[begins + 1 :] or [""]
