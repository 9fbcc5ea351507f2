-- One step of a pool: it fills up for the time that has passed, then lends or settles.
-- A step may come twice, or after its holder gave up: the second time changes nothing.
--
-- KEYS   the pool (level, at, lent, and the tokens of each lease), its leases sorted by their end
-- ARGV   size, tokens a second, seconds of a lease, seconds in which a step may come twice,
--        the time ('' for this Redis server's own), the lease; then
--          'grant', parts, least, needs, wants...     or     'settle', used
local pool, leases = KEYS[1], KEYS[2]
local size, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local lifetime, again = tonumber(ARGV[3]), tonumber(ARGV[4])
local now, id, step = tonumber(ARGV[5]), ARGV[6], ARGV[7]
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end

local function exact(number)
  return string.format('%.17g', number)
end

local found = redis.call('HMGET', pool, 'level', 'at', 'lent')
local level = tonumber(found[1] or size)
local lent = tonumber(found[3] or 0)
-- After a failover the clock may be behind: the pool then loses nothing.
level = math.min(size, level + math.max(0, now - (found[2] or now)) * rate)
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', exact(now))) do
  lent = lent - (redis.call('HGET', pool, ended) or 0)
  redis.call('HDEL', pool, ended)
  redis.call('ZREM', leases, ended)
end

local held = redis.call('HGET', pool, id)
local settled = held == '0'
local changed = found[1]
local tokens, each = 0, 0

local function hold(kept, seconds)
  redis.call('HSET', pool, id, kept)
  redis.call('ZADD', leases, exact(now + seconds), id)
  changed = true
end

if step == 'grant' and not settled then
  lent = lent - (held or 0)
  local parts, least, needs = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  local left = math.max(0, math.floor(level) - lent)
  if parts > 0 and left >= needs then
    each = math.max(math.floor(left / parts), least)
  end
  for place = 11, #ARGV do
    tokens = tokens + math.min(tonumber(ARGV[place]), each)
  end
  if tokens > 0 then
    lent = lent + tokens
    hold(exact(tokens), lifetime)
  end
elseif step == 'settle' and not settled then
  lent = lent - (held or 0)
  level = level - ARGV[8]
  hold('0', again)
end

if changed then
  redis.call('HSET', pool, 'level', exact(level), 'at', exact(now), 'lent', exact(lent))
  -- By then the pool is full and its leases have ended, which is the same as having no pool.
  local seconds = math.ceil(math.max((size - level) / rate, lifetime, again)) + 1
  redis.call('EXPIRE', pool, seconds)
  redis.call('EXPIRE', leases, seconds)
end
return {tokens, each, math.max(0, math.floor(level) - lent)}
