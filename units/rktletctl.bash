# Completion of rktletctl for bash.

__rktletctl_names() { # LISTS…
        local list
        for list; do
                case $list in
                pods) rktletctl --no-legend --no-pager --full list-pods 2>/dev/null | while read -r id namespace name _; do echo "$id $namespace/$name"; done ;;
                containers) rktletctl --no-legend --no-pager --full list-containers 2>/dev/null | while read -r id _; do echo "$id"; done ;;
                images) rktletctl --no-legend --no-pager --full list-images 2>/dev/null | while read -r _ name _; do echo "$name"; done ;;
                esac
        done
}

_rktletctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= word i
        local commands="list-pods list-containers list-images status show cat logs top events dump
                        exec shell run pull stop kill remove prune"
        local options="--help --version --json= --full --no-legend --no-pager --lines= --follow --timestamps --timeout=
                       --signal= --kill-whom= --tty --interactive --name= --setenv= --working-directory= --host-network
                       --privileged --detach --keep --username= --delay= --iterations="

        # Bash takes "=" for a word of its own.
        [[ $cur == = ]] && cur=
        [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD - 2]}
        case $prev in
        --json) word="pretty short off" ;;
        --kill-whom) word="main all" ;;
        --signal | -s) word=$(compgen -A signal | sed -n 's/^SIG\([A-Z]\)/\1/p') ;;
        --timeout | --delay | --lines | --iterations | --name | --setenv | --username | --working-directory | -n | -e) return ;;
        esac
        if [[ -n $word ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
                return
        fi
        for ((i = 1; i < COMP_CWORD; i++)); do
                [[ -z $command && " $(echo $commands) " == *" ${COMP_WORDS[i]} "* ]] && command=${COMP_WORDS[i]}
        done
        if [[ $cur == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
                [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace 2>/dev/null
                return
        fi
        case $command in
        '') word=$commands ;;
        status | show | remove) word=$(__rktletctl_names pods containers images) ;;
        cat | logs | stop | kill) word=$(__rktletctl_names pods containers) ;;
        exec | shell) word=$(__rktletctl_names containers) ;;
        run | pull) word=$(__rktletctl_names images) ;;
        prune) word="containers pods images" ;;
        *) return ;;
        esac
        # A colon would end the word for bash: what is before it has been typed already.
        mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")
        declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}

complete -F _rktletctl rktletctl
