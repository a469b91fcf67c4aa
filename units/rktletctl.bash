# Completion of rktletctl for bash.

_rktletctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= word
        local commands="list-pods list-containers list-images status show stop-pod stop-container"

        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "--help --version --json --full --no-legend --timeout=" -- "$cur")
                return
        fi
        [[ $prev == -t ]] && return
        for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
                [[ " $commands " == *" $word "* ]] && command=$word
        done
        case $command in
        '') word=$commands ;;
        stop-pod) word=$(rktletctl --no-legend list-pods 2>/dev/null | cut -d ' ' -f 1) ;;
        stop-container) word=$(rktletctl --no-legend list-containers 2>/dev/null | cut -d ' ' -f 1) ;;
        show) word=$( (rktletctl --no-legend list-pods; rktletctl --no-legend list-containers) 2>/dev/null | cut -d ' ' -f 1) ;;
        *) return ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
}

complete -F _rktletctl rktletctl
