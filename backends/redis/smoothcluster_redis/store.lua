-- Every read and every change of a part of the store. A run of the script is atomic: no other command runs in between.
-- KEYS[1] is the prefix of all keys and "meta". ARGV: the act, and the arguments of the act.
-- The script writes nothing before every check has passed. The whole script runs for each act. So the most frequent
-- acts come first, and tables and functions that most acts do not need come after them.

local CAP, STEP = $CAP, 100
local call, ARGV, act = redis.call, ARGV, ARGV[1]
local META = KEYS[1]
local prefix = string.sub(META, 1, -5)
local VALUES, MARKS, CHILDREN = prefix .. 'values', prefix .. 'marks', prefix .. 'children:'

-- Before any other command, so that the refusal names the first command that the user lacks.
if act == 'hello' then
    if not redis.acl_check_cmd then return redis.error_reply('OLDSERVER the server lacks acl_check_cmd') end
    local key = prefix .. 'x'
    for _, each in ipairs({
        {'INFO', 'server'}, {'TIME'}, {'DEL', key}, {'EXISTS', key}, {'HDEL', key, 'x'}, {'HGET', key, 'x'},
        {'HGETALL', key}, {'HMGET', key, 'x'}, {'HSET', key, 'x', 'x'}, {'PEXPIRE', key, 1}, {'SADD', key, 'x'},
        {'SMEMBERS', key}, {'SREM', key, 'x'}, {'SSCAN', key, 0}, {'XADD', key, '*', 'x', 'x'},
        {'XREAD', 'STREAMS', key, '0'}, {'ZADD', key, 1, 'x'}, {'ZRANGEBYSCORE', key, 0, 1}, {'ZREM', key, 'x'},
        {'ZSCORE', key, 'x'},
    }) do
        local known, allowed = pcall(redis.acl_check_cmd, unpack(each))
        if not known then return redis.error_reply('NOCOMMAND ' .. each[1]) end
        if not allowed then
            local where = (each[1] == 'INFO' or each[1] == 'TIME') and '' or ' on keys ' .. prefix .. '*'
            return redis.error_reply('NOPERM this user must be allowed ' .. each[1] .. where)
        end
    end
end

local time = call('TIME')
local stamp = time[1] * 1000 + math.floor(time[2] / 1000)
local known = call('HMGET', META, 'clock', 'stamp', 'number', 'store', 'since')
local clock = tonumber(known[1] or 0)
local number = tonumber(known[3] or 0)  -- Of the last commit. Below 2^53, where Lua's numbers are exact.
local store = known[4]
local since = known[5]  -- The number with which the present history begins. Part of every version: older versions fail.
local reads = act == 'get' or act == 'list' or act == 'keys' or act == 'silent'

local function whole(n)
    return string.format('%.0f', n)
end

-- Whether the act may need memory: a grant of a lease, or a commit that puts a value.
local function grows()
    if act ~= 'commit' then return act == 'lease' end
    for i = 3, #ARGV - 3, 4 do
        if ARGV[i] ~= 'if' and ARGV[i] ~= 'delete' then return true end
    end
end

-- A full server refuses the first write of a script if the command may need memory, and then no further write. So an act
-- that needs no memory begins with a write that needs none, and goes through. Return the server's refusal, if any.
local function begin_writing()
    local answer = not grows() and redis.pcall('HDEL', META, 'none')
    return type(answer) == 'table' and answer or nil
end

-- The lease clock follows the server's clock, never back, and by no more than CAP between two commands.
local passed = stamp - (tonumber(known[2]) or stamp)
local moved = false
if passed >= 0 and passed < STEP then
    clock = clock + passed  -- Not worth writing down.
elseif store then
    local refusal = begin_writing()
    if not refusal then
        moved = true
        clock = clock + math.max(0, math.min(passed, CAP))
        call('HSET', META, 'clock', whole(clock), 'stamp', whole(stamp))
    -- While the server cannot save, the clock stands still, and reading goes on.
    elseif not (string.find(refusal.err, 'MISCONF') and (reads or act == 'hello' or act == 'tick')) then
        return refusal
    end
end

-- Reading. A mark is "version created lease", and the empty string for an absent key. The first part of an answer is a
-- text with everything except the values, line by line: clients need time for each part of an answer.
-- The server waits for the script, so a run reads a bounded number of names, and no more values once the values have
-- so many bytes. The client asks for the rest, from the cursor of a directory's set, or by the names without a value.

local STEP_NAMES, STEP_BYTES, SLICE = 1000, 1048576, 20

local function read(head, keys, from)
    local marks, answer, size = {}, {''}, 0
    for first = from, #keys, SLICE do
        local last = math.min(first + SLICE - 1, #keys)
        for _, mark in ipairs(call('HMGET', MARKS, unpack(keys, first, last))) do marks[#marks + 1] = mark or '' end
        for _, value in ipairs(call('HMGET', VALUES, unpack(keys, first, last))) do
            answer[#answer + 1] = value
            size = size + #(value or '')
        end
        if size >= STEP_BYTES then break end
    end
    answer[1] = head .. since .. '\n' .. table.concat(marks, ',')
    return answer
end

-- The next names in a directory, and the cursor for the names after them.
local function scan(directory, cursor)
    local found = call('SSCAN', CHILDREN .. directory, cursor, 'COUNT', STEP_NAMES)
    return found[1] .. '\n' .. table.concat(found[2], ' ') .. '\n', found[2]
end

local function list(head, directory, cursor)
    local found, names = scan(directory, cursor)
    for i, name in ipairs(names) do names[i] = directory .. '/' .. name end
    return read(head .. found, names, 1)
end

-- The leases among the words that were last renewed so long ago by the server's clock, which runs without commands too,
-- that the holders' time is over. A client of an older version leaves no time of renewal.
local function silent()
    local found = {}
    for i, time in ipairs(call('HMGET', prefix .. 'ttls', unpack(ARGV, 2))) do
        local ttl, renewed = string.match(time or '', '^(%d+)%.(%d+)$')
        if ttl and stamp - renewed >= ttl - 2 * CAP then found[#found + 1] = ARGV[i + 1] end
    end
    return found
end

local function answer_read()
    if act == 'silent' then return silent() end
    if act == 'get' then return read('', ARGV, 2) end
    if act == 'list' then return list('', ARGV[2], ARGV[3]) end
    return {scan(ARGV[2], ARGV[3]) .. since}
end

if reads and store and not moved then return answer_read() end

-- Keys and the directories above them.

local function split(name)
    return string.match(name, '^(.*)/(.*)$')
end

-- Lua's stack, and so a command, holds 8000 words at most.
local function in_slices(command, key, words)
    for first = 1, #words, 4000 do
        call(command, key, unpack(words, first, math.min(first + 3999, #words)))
    end
end

local function by_directory(keys)
    local found = {}
    for _, key in ipairs(keys) do
        local directory, leaf = split(key)
        if directory then
            local leaves = found[directory] or {}
            found[directory] = leaves
            leaves[#leaves + 1] = leaf
        end
    end
    return found
end

local function link(keys)
    for directory, leaves in pairs(by_directory(keys)) do
        in_slices('SADD', CHILDREN .. directory, leaves)
        local above, leaf = split(directory)
        while above and call('SADD', CHILDREN .. above, leaf) == 1 do above, leaf = split(above) end
    end
end

local function unlink(keys)
    for directory, leaves in pairs(by_directory(keys)) do
        in_slices('SREM', CHILDREN .. directory, leaves)
        local above, leaf = split(directory)
        while above and call('EXISTS', CHILDREN .. directory) == 0 do
            call('SREM', CHILDREN .. above, leaf)
            directory = above
            above, leaf = split(above)
        end
    end
end

-- The changed keys, for the stream: "+" marks a key that came or went, "=" a key with a new value.
local changed_keys = {}

local function publish()
    local text, stream = whole(number), prefix .. 'stream'
    call('XADD', stream, 'MAXLEN', '~', 1000, text .. '-0', 'changed', table.concat(changed_keys, ' '))
    -- Now and then is enough: a reader that finds entries missing wakes all watchers.
    if number % 50 == 0 or number == since + 1 then call('PEXPIRE', stream, 3600000) end
    call('HSET', META, 'number', text)
    changed_keys = {}
    return text
end

local function remove(keys)
    in_slices('HDEL', MARKS, keys)
    in_slices('HDEL', VALUES, keys)
    unlink(keys)
    for _, key in ipairs(keys) do changed_keys[#changed_keys + 1] = '+' .. key end
end

-- Leases.

local LEASES, TTLS, LEASED = prefix .. 'leases', prefix .. 'ttls', prefix .. 'lease:'

local function end_lease(lease)
    local keys = call('SMEMBERS', LEASED .. lease)
    if #keys > 0 then
        number = number + 1
        remove(keys)
        publish()
        call('DEL', LEASED .. lease)
    end
    call('ZREM', LEASES, lease)
    call('HDEL', TTLS, lease)
end

local function is_alive(lease)
    return call('ZSCORE', LEASES, lease)
end

if act == 'hello' or act == 'tick' then
    -- If another server process has taken over, the last acknowledged commits and renewals may be missing. So every
    -- lease gets its full time again, and the numbers jump, so that no number is ever given twice.
    local info = call('INFO', 'server') .. call('INFO', 'replication')
    local run, replication = string.match(info, 'run_id:(%w+)'), string.match(info, 'master_replid:(%w+)')
    if run .. replication ~= store then
        begin_writing()
        store = run .. replication
        number = math.max(number + tonumber(ARGV[2]), stamp * 1000)
        since = whole(number)
        local history = 'server process ' .. run .. ', replication ' .. replication .. ', commits from ' .. since
        local former, offset = string.match(info, 'master_replid2:(%w+)'), string.match(info, 'second_repl_offset:(%d+)')
        if offset then history = history .. ', after ' .. former .. ' up to offset ' .. offset end
        call('HSET', META, 'store', store, 'since', since, 'history', history,
             'number', since, 'clock', whole(clock), 'stamp', whole(stamp))
        local ttls = call('HGETALL', TTLS)
        for i = 1, #ttls, 2 do
            call('ZADD', LEASES, 'XX', 'GT', whole(clock + math.floor(ttls[i + 1])), ttls[i])
        end
    end
elseif not store then
    return redis.error_reply('NOSTORE the store is empty')
end

-- A lease ends when the recorded clock has passed the end of the lease. Before any act, so that none sees such a lease.
if moved then
    for _, lease in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', whole(clock))) do end_lease(lease) end
    if reads then return answer_read() end
end

-- Changing. ARGV[3] and the following arguments are four words for each part of a commit, at most 4000 parts: the kind
-- of the part, key, version or nothing, value. A single further word is a directory to list afterwards.

local function marks_of(names)
    if #names <= 4000 then return call('HMGET', MARKS, unpack(names)) end
    local marks = {}
    for first = 1, #names, 4000 do
        local found = call('HMGET', MARKS, unpack(names, first, math.min(first + 3999, #names)))
        for _, mark in ipairs(found) do marks[#marks + 1] = mark end
    end
    return marks
end

local function commit(lease)
    if lease ~= '' and not is_alive(lease) then return 'lost ' .. lease end

    -- The keys, followed by every directory above a new key: such a directory must not hold bytes.
    local names, made, places, above = {}, {}, {}, {}
    for i = 4, #ARGV, 4 do names[#names + 1] = ARGV[i] end
    local count = #names
    for i = 1, count do
        local kind, key = ARGV[4 * i - 1], names[i]
        if kind == 'create' or kind == 'attach' then
            made[key] = true
            places[#places + 1] = CHILDREN .. key
            local name = split(key)
            while name and not above[name] do
                above[name] = true
                names[#names + 1] = name
                name = split(name)
            end
        end
    end
    local marks = marks_of(names)
    for i = 1, count do
        local kind, version, mark = ARGV[4 * i - 1], ARGV[4 * i + 1], marks[i]
        local created = kind == 'create' or kind == 'attach'
        if created == (mark ~= false) or (version ~= '' and string.match(mark, '^%d+') .. '-' .. since ~= version) then
            return 'refused ' .. names[i]
        end
    end
    if #places > 0 and call('EXISTS', unpack(places)) > 0 then
        for key in pairs(made) do
            if call('EXISTS', CHILDREN .. key) == 1 then return 'directory ' .. key end
        end
    end
    for i = count + 1, #names do
        if marks[i] or made[names[i]] then return 'bytes ' .. names[i] end
    end

    number = number + 1
    local version = whole(number)
    local new_marks, new_values, gone, new, attached, born = {}, {}, {}, {}, {}, {}
    for i = 1, count do
        local kind, key, mark = ARGV[4 * i - 1], names[i], marks[i]
        if kind == 'delete' then
            gone[#gone + 1] = key
            born[key] = string.match(mark, '(%S+)$')
        elseif kind ~= 'if' then
            local place, rest = #new_marks + 1, nil
            if mark then
                rest = string.match(mark, ' .*$')
                changed_keys[#changed_keys + 1] = '=' .. key
            else
                rest = ' ' .. version .. ' '
                new[#new + 1] = key
                changed_keys[#changed_keys + 1] = '+' .. key
                if kind == 'attach' then
                    rest = rest .. lease
                    attached[#attached + 1] = key
                end
            end
            new_marks[place], new_marks[place + 1] = key, version .. rest
            new_values[place], new_values[place + 1] = key, ARGV[4 * i + 2]
        end
    end
    -- The values first: a full server refuses this write, and nothing has changed.
    if #new_marks == 0 then begin_writing() end
    in_slices('HSET', MARKS, new_marks)
    in_slices('HSET', VALUES, new_values)
    for key, each in pairs(born) do call('SREM', LEASED .. each, key) end
    if #gone > 0 then remove(gone) end
    in_slices('SADD', LEASED .. lease, attached)
    if #new > 0 then link(new) end
    return 'done ' .. publish() .. '-' .. since
end

-- The time of the renewal, for people, follows the lease's time after a point: an older version, which adds this number to
-- the lease clock and rounds the sum, reads the same milliseconds, or a millisecond more.
local function grant(lease, ttl)
    call('ZADD', LEASES, whole(clock + ttl), lease)
    call('HSET', TTLS, lease, ttl .. '.' .. whole(stamp))
    return 1
end

if act == 'commit' then
    local answer = commit(ARGV[2])
    return #ARGV % 4 == 3 and list(answer .. '\n', ARGV[#ARGV], '0') or answer
end
if act == 'lease' then return grant(ARGV[2], ARGV[3]) end
if act == 'renew' then
    if not is_alive(ARGV[2]) then return 0 end
    return begin_writing() or grant(ARGV[2], ARGV[3])
end
if act == 'revoke' then return is_alive(ARGV[2]) and end_lease(ARGV[2]) end
return {whole(number), store .. ':' .. since, call('HGET', META, 'history')}
